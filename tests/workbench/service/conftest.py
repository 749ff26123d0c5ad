"""A project whose model can be served."""

from pathlib import Path

import pytest

from benchmarks.served_project import ServedProject


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> ServedProject:
    """Made once; a test works on a copy, or changes nothing."""
    return ServedProject.make(tmp_path_factory.mktemp("served") / "project")


@pytest.fixture
def project(made: ServedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServedProject:
    """A copy, in which we stand."""
    copy = made.copy(tmp_path / "project")
    monkeypatch.chdir(copy.root)
    return copy
