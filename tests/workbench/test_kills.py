"""A handful of the kills of `python -m tests.kills`."""

import random
from pathlib import Path

import pytest

from tests.clone import Project
from tests.kills import Finished, check_nothing_is_half_written, kill_one

pytestmark = [pytest.mark.xdist_group("small"), pytest.mark.slow]


@pytest.fixture(scope="module")
def killed(small_run: tuple[Project, Finished], tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Finished]:
    """A copy of the small pipeline, and how it must be in the end."""
    small, ended = small_run
    return small.copy(tmp_path_factory.mktemp("killed") / "project"), ended


@pytest.mark.parametrize("role", ["coordinator", "runner"])  # test_repro.py kills the others, of smaller stages
def test_a_kill_costs_no_more_than_the_stage_that_ran(role: str, killed: tuple[Project, Finished]) -> None:
    """Nothing half-written, no process left behind, and the next run gives the same bytes."""
    project, expected = killed
    moment = random.Random(role).uniform(0.2, 0.7) * expected.seconds
    print(kill_one(project, role, moment, expected, forget=role == "runner"))


@pytest.mark.parametrize("half", ["results/table.parquet", "notebooks/small/dvc.lock", "cache"])
def test_what_is_half_written_would_be_seen(half: str, killed: tuple[Project, Finished], tmp_path: Path) -> None:
    """An output, an entry of a lock, an object in the cache: else the test above would show nothing."""
    whole, expected = killed
    project = whole.copy(tmp_path / "project")
    check_nothing_is_half_written(project, expected)
    path = next((project.root / ".dvc/cache/files/md5").glob("??/*")) if half == "cache" else project.root / half
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"size: ", b"size: 1") if path.suffix == ".lock" else content[:-1])
    with pytest.raises(AssertionError, match="half|not so"):
        check_nothing_is_half_written(project, expected)
