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
    "smallest.rows=10",
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
    "cleanse.trusted=30",
    "cleanse.strip.overlays=10",
    "cleanse.neural_cleanse.rounds=3",
    "cleanse.repairs.i_bau.rounds=2",
    "incident.data.train_size=200",
    "ingest.broken=2",
    "incident.data.test_size=60",
    "incident.monitor.overlays=10",
    "incident.seen=10",
    "incident.checked=30",
    "incident.fpr=0.1",
    "incident.days=2",
    "incident.first=2",
    "incident.visitors=10",
    "partition.rows=20",
    "partition.defense.partitions=3",
    "partition.defense.fit.epochs=1",
    "partition.budgets=[0,1]",
    "matching.targets=1",
    "matching.fit.epochs=1",
    "matching.attack.steps=2",
    "availability.regression.levels=[0.1]",
    "availability.regression.attack.steps=2",
    "availability.classifier.levels=[0.1]",
    "availability.classifier.attacks.worst_rows.steps=2",
    "poison_svm.rows=8",
    "poison_svm.most=1",
    "poison_svm.step=1",
    "privacy.promises=[epsilon_3,standard]",
    "private.shipped.epochs=1",
    "private.shipped.batch_size=50",
    "private.fit.epochs=2",
    "private.members=8",
    "private.canaries=40",
    "private.fprs=[0.005,0.01]",
    "private.resamples=10",
    "private.confidence=0.975",
    "mechanism.runs=300",
    "mechanism.canaries=100",
    "release.draws=3",
    "memorise.fit.epochs=1",
    "memorise.fit.batch_size=2048",
    "memorise.canary.length=2",
    "memorise.secrets=2",
    "memorise.repeats=[4]",
    "reconstruct.levels=[1.4]",
    "reconstruct.trials=2",
    "reconstruct.pictures=2",
    "reconstruct.noises=[0.0,0.3]",
    "reconstruct.shown=[0.0]",
    "reconstruct.inversion.steps=3",
    "invert.promises=[standard,epsilon_8]",
    "invert.images.fit.epochs=1",
    "invert.images.descent.steps=3",
    "invert.table.fit.epochs=1",
    "federated.rounds=2",
    "federated.client_level.rounds=2",
    "federated.client_level.clients=20",
    "federated.inversion.steps=3",
    "keras.names=epsilon_3",
    "keras.epochs=1",
    "keras.batch_size=50",
    "steal.fit.epochs=1",
    "steal.copying.epochs=1",
    "steal.budgets=[60,80]",
    "watch.honest=40",
    "watch.queries=60",
    "watch.attackers=1",
    "watch.inputs=1",
    "watch.evasions.square.queries=20",
    "watch.evasions.hop_skip_jump.queries=20",
    "claim.fit.epochs=1",
    "claim.references=2",
    "claim.fingerprints.ip_guard.steps=5",
    "claim.removals.extraction.attack.fit.epochs=1",
    "claim.removals.extraction.attack.budget=40",
    "claim.removals.fine_tuning.fit.epochs=1",
    "claim.removals.pruning_80.compression.fit.epochs=1",
    "claim.keys=10",
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
