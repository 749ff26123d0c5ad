"""What `aisec collect` refuses: results that no stage declares, and declared ones that nobody collects."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from aisec_lab.workbench import collect as collecting
from aisec_lab.workbench import result_check
from aisec_lab.workbench.collect import collect
from aisec_lab.workbench.stages import Declared

ROW = {"study": "a", "data": "d", "model": "m", "defense": "none", "attack": "none", "metric": "clean_accuracy"}


def notebook(study: str, name: str, *deps: str) -> Declared:
    """A stage that runs a notebook and leaves a folder."""
    folder = f"results/{study}/{name}"
    return Declared(study, name, f"aisec run notebooks/{study}/{name}.ipynb {folder}", (), {}, deps, (folder,))


def collects(study: str) -> Declared:
    """The stage that collects a study."""
    table = f"results/tables/{study}"
    return Declared("root", f"collect@{study}", f"aisec collect {study}", (), {"study": study}, (), (table,))


class Small(NamedTuple):
    """Two studies, of which one has two notebooks: the second reads what the first leaves."""

    root: Path
    stages: list[Declared]

    def write(self, name: str) -> None:
        place = self.root / "results" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix == ".parquet":
            pd.DataFrame([ROW | {"value": 1.0}]).to_parquet(place)
        else:
            place.write_text("")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    page = "results/summary/a/page.html"
    stages = [
        collects("a"),
        collects("b"),
        Declared("root", "table", "aisec table", (), {}, (), ("results/table.parquet", "results/metrics.json")),
        notebook("a", "first"),
        notebook("a", "second", "results/a/first"),
        notebook("b", "other"),
        Declared("a", "summary", "aisec run notebooks/a/summary.ipynb results/summary/a", (), {}, (), (page,)),
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collecting, "declared", lambda: stages)
    project = Small(tmp_path, stages)
    for name in ("a/first/first.html", "a/first/arrays.npz", "a/second/second.html", "a/second/rows.parquet"):
        project.write(name)
    return project


def test_what_is_declared_and_read_is_collected(small: Small) -> None:
    """Beside the outputs of other stages, hidden files, and what a notebook has not finished."""
    for name in ("table.parquet", "metrics.json", "summary/a/page.html", "tables/a/old.csv"):
        small.write(name)
    for name in ("a/second/.rows.parquet.1.part", ".gitignore", "summary/a/summary.failed.ipynb"):
        small.write(name)
    for name in ("b/other/running.html", "b/undeclared/rows.parquet", "summary/b/page.html"):
        small.write(name)  # of another study, whose own `collect` looks at it
    collect("a")
    assert list(pd.read_parquet("results/tables/a/table.parquet").metric) == ["clean_accuracy"]


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("svm_ours/rows.parquet", "results/svm_ours"),
        ("nosuch/deep/down/rows.parquet", "results/nosuch"),
        ("a/third/rows.parquet", "results/a/third"),
        ("a/third/third.html", "results/a/third"),
        ("a/rows.parquet", "results/a/rows.parquet"),
        ("left.csv", "results/left.csv"),
        ("tables/c/table.parquet", "results/tables/c"),
        ("summary/c/page.html", "results/summary/c"),
        ("summary/a/more.png", "results/summary/a/more.png"),
    ],
)
def test_a_result_that_no_stage_declares_is_refused(written: str, named: str, small: Small) -> None:
    """Whatever file it is and wherever it lies; nothing is written."""
    small.write(written)
    with pytest.raises(ValueError, match="that no stage declares") as refusal:
        collect("a")
    assert str(refusal.value) == f"results that no stage declares: {named}; rm -r {named}"
    assert not Path("results/tables/a").exists()


def test_a_declared_result_that_nobody_collects_is_refused(small: Small) -> None:
    """One without rows that no notebook reads; one that is not there; one of a study without a stage `collect`."""
    Path("results/a/second/rows.parquet").unlink()
    with pytest.raises(
        ValueError, match=r"^results/a/second holds no rows\.parquet and no stage reads it: .* a\.second$"
    ):
        collect("a")
    small.write("a/second/rows.parquet")
    Path("results/a/first/first.html").unlink()
    with pytest.raises(ValueError, match="^results missing: results/a/first; run `aisec repro`$"):
        collect("a")
    small.write("a/first/first.html")
    small.stages.append(notebook("c", "new"))
    with pytest.raises(ValueError, match=r"^nobody collects results/c/new, .* names the studies \['a', 'b'\], add 'c'"):
        collect("a")


def test_a_study_with_a_table_of_its_own_says_what_it_takes(small: Small) -> None:
    """Any other notebook of it needs rows, as in other studies."""
    cells = [stage for stage in small.stages if stage.study == "a" and stage.name == "second"]
    result_check.check_readers(cells, small.stages, {"second": "second.html"})
    with pytest.raises(ValueError, match=r"holds no metrics\.json"):
        result_check.check_readers(cells, small.stages, {"second": "metrics.json"})


def test_a_stage_whose_model_is_read_needs_no_rows(small: Small) -> None:
    """Its training has left a history, which no table takes; nor need the models of other seeds be read."""
    one, two = (
        notebook("a", f"train@{seed}")._replace(outs=(f"models/{seed}", f"results/a/train@{seed}")) for seed in (0, 1)
    )
    result_check.check_readers([one, two], [one, two, notebook("a", "attack", "models/0")], {})
    with pytest.raises(ValueError, match="drop a.train@0"):
        result_check.check_readers([one, two], [one, two], {})
