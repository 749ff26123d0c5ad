"""The policy at `aisec data` and `aisec ledger`: asked of whoever names a role, of nobody else."""

import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from aisec_lab.data import CATALOG
from aisec_lab.workbench.command import main
from tests.clone import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a policy, a dataset and a ledger; nobody has said who asks."""
    root = tmp_path / "project"
    (root / "data/digits").mkdir(parents=True)
    (root / "data/digits/train.npz").write_bytes(b"honest")
    (root / "models/cnn").mkdir(parents=True)
    (root / "models/cnn/model.safetensors").write_bytes(b"weights")
    (root / "dvc.yaml").touch()
    shutil.copytree(ROOT / "configs/access", root / "configs/access")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    monkeypatch.chdir(root)
    monkeypatch.delenv("AISEC_ROLE", raising=False)
    aisec("ledger init")
    return root


def aisec(words: str, code: int = 0) -> str:
    """What the command prints; one line where it refuses."""
    done = CliRunner().invoke(main, words.split(), catch_exceptions=False)
    assert done.exit_code == code, done.output
    assert not code or len(done.output.strip().splitlines()) == 1, done.output
    return done.output


def refusals(project: Path) -> list[str]:
    """What the ledger says of them, last first."""
    return [line.split(" refuse ")[1] for line in reversed(aisec("ledger log").splitlines()) if " refuse " in line]


def test_a_stage_needs_no_role(project: Path) -> None:
    """`aisec data digits`, as dvc.yaml has it; also by the full name of the command, and several, elsewhere."""
    assert aisec("data digits") == "data/digits\n"
    assert (project / "data/digits/card.json").exists()
    assert aisec("data prepare data/a/digits data/b/digits") == "data/a/digits\ndata/b/digits\n"
    assert aisec("ledger verify").startswith("intact, 0 entries")


def test_no_dataset_is_called_as_a_command() -> None:
    """Else its name would not prepare it; the commands of dvc.yaml are those of datasets."""
    group = main.commands["data"]
    assert isinstance(group, click.Group)
    assert set(group.commands) == {"prepare", "rollback"}
    assert not set(group.commands) & set(CATALOG)


def test_a_named_role_must_be_one_that_may_write_the_data(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the option, wherever it stands, or the environment; nothing is touched, each refusal is recorded."""
    for words in (
        "data digits --role researcher",
        "data --role researcher digits",
        "data data/x/digits --role service",
    ):
        assert "may not write data/" in aisec(words, code=2)
    monkeypatch.setenv("AISEC_ROLE", "auditor")
    assert aisec("data digits", code=2).startswith("aisec: auditor may not write data/digits (steward may)")
    assert [path.name for path in project.glob("data/digits/*")] == ["train.npz"]
    assert aisec("data digits --role steward") == "data/digits\n"
    assert aisec("data scratch/digits") == "scratch/digits\n", "outside data/ nobody is asked"
    assert refusals(project) == [
        "data/digits (nothing -> nothing): auditor may not write it",
        "data/x/digits (nothing -> nothing): service may not write it",
        "data/digits (nothing -> nothing): researcher may not write it",
        "data/digits (nothing -> nothing): researcher may not write it",
    ]
    monkeypatch.setenv("AISEC_ROLE", "auditr")
    assert "no role 'auditr': did you mean 'auditor'?" in aisec("data digits", code=2)
    monkeypatch.delenv("AISEC_ROLE")
    assert len(refusals(project)) == 4, "a misspelt role is nobody's refusal"


@pytest.mark.parametrize("command", [
    "init", "append --what alarm --object data/digits --why x",
    "log", "prove 0", "prove --since ledger/head.json", "verify",
])  # fmt: skip
@pytest.mark.parametrize("role", ["steward", "researcher", "auditor", "service"])
def test_the_ledger_is_kept_as_the_policy_has_it(role: str, command: str, project: Path) -> None:
    """Every command of each role: granted and done, or refused and recorded."""
    aisec("ledger append --what alarm --object data/digits --why x")
    action = {"init": "append", "append": "append", "verify": "verify"}.get(command.split()[0], "read")
    granted = f"p, {role}, {action}, ledger," in Path("configs/access/policy.csv").read_text()
    if command == "init":
        shutil.rmtree("ledger")
        Path(".aisec/keys/ledger.pem").unlink()
    output = aisec(f"ledger {command} --role {role}", code=0 if granted else 2)
    if granted:
        assert "may not" not in output
    elif command == "init":
        assert not Path("ledger").exists()
    else:
        assert output.startswith(f"aisec: {role} may not {action} ledger (")
        assert refusals(project) == [f"ledger (nothing -> nothing): {role} may not {action} it"]


def test_only_who_may_write_an_object_records_a_version_to_go_back_to(project: Path) -> None:
    """Or a researcher could accept poison, and have the steward roll back to it."""
    accept = "ledger append --what accept --why good --object"
    refused = aisec(f"{accept} data/digits --role researcher", code=2)
    assert refused.startswith("aisec: researcher may not write data/digits (steward may)")
    aisec(f"{accept} models/cnn --role researcher")
    aisec(f"{accept} data/digits --role steward")
    aisec("ledger append --what alarm --why x --object data/digits --role service")
    aisec(f"{accept} dvc.yaml --role researcher")
    assert refusals(project) == ["data/digits (nothing -> nothing): researcher may not write it"]


def test_a_copy_of_the_ledger_elsewhere_is_free(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's own is not, by whatever path; far from any project there is no policy."""
    aisec("ledger append --what accept --object data/digits --why good")
    shutil.copytree("ledger", tmp_path / "copy")
    monkeypatch.setenv("AISEC_ROLE", "service")
    assert aisec(f"ledger --folder {tmp_path}/copy verify").startswith("intact")
    assert "service may not verify ledger" in aisec("ledger --folder data/../ledger verify", code=2)
    monkeypatch.chdir(tmp_path)
    assert aisec("ledger --folder copy log").count("\n") == 1
