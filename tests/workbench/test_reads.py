"""Which parameters a notebook reads, found without running it."""

from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest

from aisec_lab.workbench.reads import reads_of
from tests.small import notebook_of

DECLARED = '# %% parameters\nattack = "pgd"  # by default\nseed: int = 0\noverrides: list[str] = []\n'


class Case(NamedTuple):
    cell: str
    passed: dict[str, Any]
    found: tuple[str, ...]


def saved(folder: Path, cell: str) -> Path:
    """A notebook with the declared parameters and one more cell."""
    path = folder / "a.ipynb"
    nbformat.write(notebook_of(f"{DECLARED}# %%\n%matplotlib inline\n# %%\n{cell}\n", "aisec-lab"), path)
    return path


@pytest.mark.parametrize(
    "case",
    [
        Case('cfg = configure(overrides, reads=["model", "data"])', {}, ("data", "model")),
        Case('configure(reads=[f"attacks.{attack}"])', {}, ("attacks.pgd",)),
        Case('configure(reads=[f"attacks.{attack}"])', {"attack": "nes"}, ("attacks.nes",)),
        Case('configure(reads=[f"{attack}.{seed}.x", "y"])', {"seed": 3}, ("pgd.3.x", "y")),
        Case("print(attack)", {}, ()),
    ],
    ids=lambda case: case.cell,
)
def test_the_names_are_those_that_the_call_will_have(case: Case, tmp_path: Path) -> None:
    """With what a stage passes in place of the default; other cells may hold what only IPython can read."""
    assert reads_of(saved(tmp_path, case.cell), case.passed) == case.found


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("cfg = configure(overrides)", "lacks a list of what the notebook reads"),
        ("cfg = configure(overrides, reads=names)", "lacks a list of what the notebook reads"),
        ("configure(reads=[name])", "`reads` holds name, which is no name or parameter"),
        ('configure(reads=[f"attacks.{other}"])', "which is no name or parameter"),
        ('configure(reads=[f"attacks.{attack.upper()}"])', "which is no name or parameter"),
    ],
)
def test_names_that_cannot_be_told_are_refused_with_the_mend(cell: str, message: str, tmp_path: Path) -> None:
    """Else a stage would not track what its notebook reads."""
    with pytest.raises(ValueError, match=message) as caught:
        reads_of(saved(tmp_path, cell), {})
    assert "a.ipynb: " in str(caught.value)
    assert "write `cfg = configure(overrides, reads=[" in str(caught.value)


def test_a_second_call_is_refused(tmp_path: Path) -> None:
    """What it reads would be tracked by nobody."""
    with pytest.raises(ValueError, match="calls `configure` 2 times"):
        reads_of(saved(tmp_path, 'configure(reads=["data"])\nconfigure(reads=["fit"])'), {})
