"""`dvc repro` and `aisec repro` are the same: bytes, locks, and what is up to date; on the small pipeline."""

import json
import re
from pathlib import Path

import pytest

from tests.clone import Project
from tests.reproducible import differing, digests
from tests.small import LEGACY

pytestmark = [pytest.mark.xdist_group("small"), pytest.mark.slow]

UP_TO_DATE = "Data and pipelines are up to date."
NES = "notebooks/small/dvc.yaml:attack@nes-standard"
AFTER_NES = {"collect@small", "table", "notebooks/small/dvc.yaml:summary", "report"}


@pytest.fixture(scope="module")
def by_dvc(small_sources: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small pipeline, run by `dvc repro` from nothing."""
    project = small_sources.copy(tmp_path_factory.mktemp("dvc") / "project")
    project.run("dvc", "repro", "--force")
    project.commit("run")
    return project


@pytest.fixture
def fresh(small: Project, tmp_path: Path) -> Project:
    """A copy of the small pipeline, run."""
    return small.copy(tmp_path / "project")


def ran(output: str) -> set[str]:
    """The stages that `aisec repro` says it ran."""
    return set(re.findall(r"^ran +(\S+) in", output, re.MULTILINE))


def test_from_nothing_both_runners_give_the_same_bytes_and_locks(small: Project, by_dvc: Project) -> None:
    """Two at a time in forks, and one by one in processes of their own; the locks in the same order."""
    found = digests(small.root)
    assert differing(found, digests(by_dvc.root)) == []
    kinds = {Path(name).suffix for name in found}
    assert kinds == {".lock", ".npz", ".txt", ".json", ".safetensors", ".parquet", ".ipynb", ".html", ".png"}
    assert {"dvc.lock", "notebooks/small/dvc.lock"} < found.keys()
    assert small.git("ls-files", "--stage") == by_dvc.git("ls-files", "--stage"), "nor does what git holds differ"
    runs = [
        sorted(path.relative_to(project.root) for path in project.root.glob(".dvc/cache/runs/*/*/*"))
        for project in (small, by_dvc)
    ]
    assert runs[0] == runs[1], "nor does the cache of runs differ"


def test_the_other_runner_finds_everything_up_to_date(small: Project, by_dvc: Project) -> None:
    """Each after the other."""
    output = small.run("dvc", "repro")
    assert UP_TO_DATE in output
    assert "Running stage" not in output
    assert UP_TO_DATE in by_dvc.run("aisec", "repro")


def test_forced_again_by_the_other_it_gives_the_same_bytes(by_dvc: Project) -> None:
    """All stages run, one at a time, in what DVC had made, as `make reproducible` compares it."""
    output = by_dvc.run("python", "-m", "tests.reproducible", "--jobs", "1")
    assert re.search(r"^(\d+) of \1 files are the same to the last byte$", output, re.MULTILINE), output[-2000:]
    listed = by_dvc.run("dvc", "stage", "list", "--all", "--name-only").split()
    assert ran(output) == set(listed)
    assert by_dvc.git("status", "--porcelain") == ""


def test_an_experiment_gives_what_compose_and_repro_give(fresh: Project, tmp_path: Path) -> None:
    """`dvc exp run` recomposes params.yaml as `aisec compose` would, runs the same stages, and can be compared."""
    override, other = "attacks.nes.ball.eps=0.2", fresh.copy(tmp_path / "other")
    output = fresh.run("dvc", "exp", "run", "-S", override)
    composed = set(re.findall(r"Running stage '(.+)'", output))
    other.aisec("compose", override)
    repeated = other.run("aisec", "repro", "--jobs", "2")
    assert composed == ran(repeated) == {"code", NES, *AFTER_NES}
    assert (fresh.root / "params.yaml").read_text() == (other.root / "params.yaml").read_text()
    assert differing(digests(fresh.root), digests(other.root)) == []
    difference = fresh.run("dvc", "metrics", "diff")
    assert "under nes at Linf 0.2.value" in difference
    assert "under apgd_ce" not in difference


def test_what_gives_the_same_result_stops_there(fresh: Project) -> None:
    """An edit of an attack that changes nothing of what it does: its stage runs, and what reads its rows does not."""
    nes = fresh.root / "aisec_lab/attacks/evasion/black_box/nes.py"
    nes.write_text(nes.read_text() + "\nUNUSED = 1\n")
    assert ran(fresh.run("aisec", "repro", "--jobs", "2")) == {"code", NES}


@pytest.mark.skipif(not LEGACY, reason="there is no kernel aisec-legacy: `make legacy` makes it")
def test_the_other_kernel_was_the_other(small: Project) -> None:
    """Started the ordinary way, by both runners."""
    executed = json.loads((small.root / "results/small/words/words.ipynb").read_text())
    assert executed["metadata"]["kernelspec"]["name"] == "aisec-legacy"
