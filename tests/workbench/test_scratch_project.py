"""A project of its own, in which a notebook runs the lab's commands."""

from pathlib import Path

import pytest

from aisec_lab.workbench.scratch_project import ScratchProject
from tests.clone import ROOT


def test_it_accepts_versions_and_says_what_a_command_says(tmp_path: Path) -> None:
    """Each accepted version is an entry of a ledger that verifies; a command that fails says why."""
    dataset = tmp_path / "prepared/rows"
    dataset.mkdir(parents=True)
    (dataset / "train.npz").write_bytes(b"first")
    (tmp_path / "project").mkdir()
    project = ScratchProject(tmp_path / "project", dataset, ROOT / "configs/access")
    project.accept("first version")
    (project.root / "data/rows/train.npz").write_bytes(b"second")
    project.accept("another")
    assert [(entry["object"], entry["why"]) for entry in project.entries()] == [
        ("data/rows", "first version"),
        ("data/rows", "another"),
    ]
    assert (dataset / "train.npz").read_bytes() == b"first"
    assert "2 entries" in project.run("aisec", "ledger", "verify")
    with pytest.raises(RuntimeError, match="aisec ledger append"):
        project.run("aisec", "ledger", "append", "--what", "accept", "--object", "data/none", "--why", "no such thing")
