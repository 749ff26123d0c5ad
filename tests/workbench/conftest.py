"""A study that has been run, for the tests that look at what it left."""

from collections.abc import Iterator

import pytest

from tests.clone import SMALL, Clone


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Run and committed; modules that use it share the group `study`, and a test puts back what it changed."""
    clone = Clone(tmp_path_factory.mktemp("study"))
    clone.run("aisec", "compose", *SMALL)
    clone.run("dvc", "repro")
    clone.commit("study")
    return clone


@pytest.fixture
def restored(study: Clone) -> Iterator[Clone]:
    """The study, brought back afterwards to what was committed."""
    yield study
    study.git("reset", "-q", "--hard")
    study.git("clean", "-qfdx", "data", "models", "results", "reports")
    study.run("dvc", "checkout", "-q")
