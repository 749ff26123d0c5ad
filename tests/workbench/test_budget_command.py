"""`aisec budget`, as a person types it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from aisec_lab.workbench.command import main

Aisec = Callable[..., str]
TRAINING = ("--q", "1", "--sigma", "20", "--steps", "4")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a dataset that has a budget, in whose notebooks/ we stand."""
    (tmp_path / "data/adult").mkdir(parents=True)
    (tmp_path / "data/adult/train.npz").write_bytes(b"rows")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


@pytest.fixture
def aisec(project: Path) -> Aisec:
    """Run `aisec budget …` there, see how it exits; what it says."""

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["budget", *arguments], catch_exceptions=False)
        assert done.exit_code == code, done.output
        assert not code or len(done.output.strip().splitlines()) == 1, done.output
        return done.output

    run("open", "data/adult", "--epsilon", "1", "--delta", "1e-5", "--rows", "1000")
    return run


def test_a_budget_is_opened_spent_and_shown(aisec: Aisec, project: Path) -> None:
    """A training (eq. 6 of arXiv:1805.06530) and a release; by themselves, together, and by each accountant."""
    assert (project / "budget.json").exists()
    assert "train: 0.3407 of epsilon 1 at delta 1e-05 is spent" in aisec(
        "charge", "data/adult", "--name", "train", *TRAINING
    )
    aisec("charge", "data/adult", "--name", "count", "--epsilon", "0.1", "--delta", "1e-6")
    shown = aisec("show", "data/adult").splitlines()
    assert shown == aisec("show").splitlines()
    stated = re.fullmatch(r"data/adult: epsilon (\S+) spent \(rdp (\S+), pld (\S+)\), limit 1 at delta 1e-05", shown[0])
    assert stated
    spent, rdp, pld = map(float, stated.groups())
    assert spent == pld < rdp
    assert 0.3407 < pld < 0.4407
    assert shown[1:] == ["  train: 0.3407 alone", "  count: 0.09998 alone"]  # at the limit's delta


def test_what_would_pass_the_limit_exits_with_one_line(aisec: Aisec, project: Path) -> None:
    """And changes nothing."""
    before = (project / "budget.json").read_bytes()
    assert "past its limit" in aisec("charge", "data/adult", "--name", "big", "--epsilon", "2", code=2)
    (project / "data/adult/train.npz").write_bytes(b"other rows")
    assert "opened for" in aisec("charge", "data/adult", "--name", "count", "--epsilon", "0.1", code=2)
    assert (project / "budget.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("charge", "data/adult", "--name", "run"), "give --q, --sigma and --steps"),
        (("charge", "data/adult", "--name", "run", "--q", "1", "--sigma", "1"), "give --q, --sigma and --steps"),
        (("charge", "data/adult", "--name", "run", *TRAINING, "--epsilon", "1"), "give --q, --sigma and --steps"),
        (("charge", "data/adult", "--name", "run", *TRAINING, "--delta", "1e-6"), "give --q, --sigma and --steps"),
        (("charge", "data/none", "--name", "run", *TRAINING), "no file or folder at data/none"),
        (("charge", "../adult", "--name", "run", *TRAINING), "name it by its path from the project's root"),
        (("open", "dvc.yaml", "--epsilon", "0", "--delta", "1e-5", "--rows", "10"), "epsilon must be positive"),
        (("open", "dvc.yaml", "--epsilon", "1", "--delta", "0.1", "--rows", "10"), "delta must lie"),
        (("open", "data/adult", "--epsilon", "2", "--delta", "1e-5", "--rows", "1000"), "has a budget"),
        (("show", "data/none"), "data/none has no budget"),
    ],
    ids=str,
)
def test_what_is_wrong_exits_with_one_line(arguments: tuple[str, ...], said: str, aisec: Aisec) -> None:
    """That says what to give."""
    assert said in aisec(*arguments, code=2)
