"""Studies that have been run, for the tests that look at what they left; each is run once for all of them."""

from collections.abc import Iterator

import pytest

from tests.clone import SMALL, Clone, Project
from tests.kills import Finished, finished
from tests.small import small_project


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """The whole pipeline in small, run and committed, and what was printed meanwhile."""
    clone = Clone(tmp_path_factory.mktemp("study"))
    clone.aisec("compose", *SMALL)
    said = clone.run("aisec", "repro", "--jobs", "2")
    clone.commit("study")
    return clone, said


@pytest.fixture(scope="session")
def study(first_run: tuple[Project, str]) -> Project:
    """That pipeline; modules that use it share the group `study`, and a test puts back what it changed."""
    return first_run[0]


@pytest.fixture
def restored(study: Project) -> Iterator[Project]:
    """The same, brought back afterwards to what was committed."""
    yield study
    study.git("reset", "-q", "--hard")
    study.git("clean", "-qfdx", "data", "models", "results", "reports", "code.json", "reach.json")
    study.run("dvc", "checkout", "-q")


@pytest.fixture(scope="session")
def small_sources(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small pipeline, not run; modules that use it share the group `small`, and a test works on a copy."""
    return small_project(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small_run(small_sources: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Finished]:
    """The small pipeline, run and committed, and how it then was."""
    project = small_sources.copy(tmp_path_factory.mktemp("run") / "project")
    ended = finished(project)
    project.commit("run")
    return project, ended


@pytest.fixture(scope="session")
def small(small_run: tuple[Project, Finished]) -> Project:
    """The small pipeline, run and committed; a test works on a copy, or puts back what it changed."""
    return small_run[0]
