"""A copy of the project, for tests that run its commands."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner

from aisec_lab.workbench.command import main

ROOT = Path(__file__).parents[1]
SMALL = (  # one model, two attacks, the least of everything: what `aisec compose` is given for a study of half a minute
    "study.objectives=[standard]",
    "study.seeds=[0]",
    "study.attacks=[apgd_ce,square]",
    "curve.levels=[0.1]",
    "fit.epochs=1",
    "data.train_size=200",
    "data.test_size=60",
    "attacks.apgd_ce.steps=3",
    "attacks.square.queries=10",
    "attacks.apgd_t.steps=2",
    "attacks.apgd_t.targets=1",
    "diagnose.rows=10",
    "evasion.objectives=[standard]",
    "minimum_norm.rows=10",
    "black_box.rows=5",
    "black_box.queries=[20,40]",
    "certify.rows=5",
    "certify.smoothing.n=200",
    "certify.smoothing.levels=[0.2]",
    "physical.fit.epochs=1",
    "physical.patch.epochs=1",
    "physical.sticker.epochs=1",
    "tables.levels=[0.5]",
    "text.data.test_size=20",
    "text.training.fit.epochs=2",
    "text.levels=[0.1]",
    "text.certificate.n=50",
    "control.policy.episodes=3",
    "control.policy.horizon=20",
    "control.policy.levels=[0.1]",
    "control.regression.levels=[0.02]",
    "svm.rows=4",
    "svm.budgets=1",
    "poisoning.attacks=[badnets]",
    "poisoning_defenses.trusted=30",
    "poisoning_defenses.strip.overlays=10",
    "poisoning_defenses.neural_cleanse.rounds=3",
    "poisoning_defenses.repairs.i_bau.rounds=2",
    "backdoor_incident.data.train_size=200",
    "ingest.broken=2",
    "backdoor_incident.data.test_size=60",
    "backdoor_incident.monitor.overlays=10",
    "backdoor_incident.seen=10",
    "backdoor_incident.checked=30",
    "backdoor_incident.fpr=0.1",
    "backdoor_incident.days=2",
    "backdoor_incident.first=2",
    "backdoor_incident.visitors=10",
    "certified_aggregation.rows=20",
    "certified_aggregation.defense.partitions=3",
    "certified_aggregation.defense.fit.epochs=1",
    "certified_aggregation.budgets=[0,1]",
    "gradient_matching.targets=1",
    "gradient_matching.fit.epochs=1",
    "gradient_matching.attack.steps=2",
    "availability.regression.levels=[0.1]",
    "availability.regression.attack.steps=2",
    "availability.classifier.levels=[0.1]",
    "availability.classifier.attacks.worst_rows.steps=2",
    "poison_svm.rows=8",
    "poison_svm.most=1",
    "poison_svm.step=1",
    "privacy.dp_settings=[epsilon_3,standard]",
    "dp_training.shipped.epochs=1",
    "dp_training.shipped.batch_size=50",
    "dp_training.fit.epochs=2",
    "dp_training.members=8",
    "dp_training.canaries=40",
    "dp_training.fprs=[0.005,0.01]",
    "dp_training.resamples=10",
    "dp_training.confidence=0.975",
    "dp_audit.runs=300",
    "dp_audit.canaries=100",
    "dp_statistics.draws=3",
    "canary_exposure.fit.epochs=1",
    "canary_exposure.fit.batch_size=2048",
    "canary_exposure.canary.length=2",
    "canary_exposure.secrets=2",
    "canary_exposure.repeats=[4]",
    "reconstruct.levels=[1.4]",
    "reconstruct.trials=2",
    "reconstruct.pictures=2",
    "reconstruct.noises=[0.0,0.3]",
    "reconstruct.shown=[0.0]",
    "reconstruct.inversion.steps=3",
    "model_inversion.dp_settings=[standard,epsilon_8]",
    "model_inversion.images.fit.epochs=1",
    "model_inversion.images.descent.steps=3",
    "model_inversion.table.fit.epochs=1",
    "federated.rounds=2",
    "federated.client_level.rounds=2",
    "federated.client_level.clients=20",
    "federated.inversion.steps=3",
    "tf_privacy.names=epsilon_3",
    "tf_privacy.epochs=1",
    "tf_privacy.batch_size=50",
    "model_extraction.fit.epochs=1",
    "model_extraction.copying.epochs=1",
    "model_extraction.budgets=[60,80]",
    "query_monitoring.honest=40",
    "query_monitoring.queries=60",
    "query_monitoring.attackers=1",
    "query_monitoring.inputs=1",
    "query_monitoring.evasions.square.queries=20",
    "query_monitoring.evasions.hop_skip_jump.queries=20",
    "ownership.fit.epochs=1",
    "ownership.references=2",
    "ownership.fingerprints.ip_guard.steps=5",
    "ownership.removals.extraction.attack.fit.epochs=1",
    "ownership.removals.extraction.attack.budget=40",
    "ownership.removals.fine_tuning.fit.epochs=1",
    "ownership.removals.pruning_80.compression.fit.epochs=1",
    "ownership.keys=10",
    "compress.mark.fit.epochs=1",
    "compress.compressions.unstructured_90.fit.epochs=1",
    "compress.compressions.robust_90.scoring.epochs=1",
    "compress.compressions.robust_90.fit.epochs=1",
    "compress.compressions.structured_50.fit.epochs=1",
    "compress.compressions.student.fit.epochs=1",
    "compress.attack.steps=2",
    "compress.rows=50",
)


class Project:
    """A project in a folder of its own, with git and DVC, in which commands can be run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def environment(self) -> dict[str, str]:
        """The caller's, with this interpreter's commands first, and the project's own package."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        return inherited | {"PATH": path, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}

    def git(self, *arguments: str) -> str:
        """Run git here; its output."""
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self, message: str) -> None:
        """Commit all that git does not ignore."""
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command here, see that it exits with `code`; stdout and stderr together."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == code, done.stdout[-4000:]
        return done.stdout

    def aisec(self, *words: str, code: int = 0) -> str:
        """Run `aisec` in this process, standing here, see that it exits with `code`; stdout and stderr together.

        It is this repository's `aisec`, whatever package lies here: for what only reads the project.
        """
        with contextlib.chdir(self.root):
            done = CliRunner().invoke(main, words)
        assert done.exit_code == code, done.output[-4000:]
        return done.output

    def copy(self, root: Path) -> "Project":
        """The same project in another folder, which is made."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)


class Clone(Project):
    """A copy of this repository, but for results and locks.

    Args:
        root: an empty folder, or one that is made.
        parts: how the names of the files to copy may begin; all of them by default.
    """

    def __init__(self, root: Path, parts: Sequence[str] = ("",)) -> None:
        super().__init__(root)
        root.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in listed.stdout.splitlines():
            wanted = name.startswith(tuple(parts)) and not name.startswith("results/") and Path(name).name != "dvc.lock"
            if wanted and (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        self.git("init", "-q")
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@localhost")
        self.commit("clone")
