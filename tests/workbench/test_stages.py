"""What the pipeline of this repository declares, and what stands beside it for a reader."""

import re
from collections import Counter
from contextlib import chdir
from pathlib import Path

import nbformat
import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from aisec_lab.workbench.report import title_of
from aisec_lab.workbench.stages import (
    Declared,
    declared,
    experiments,
    key_of,
    pipeline_files,
    studies,
)
from tests.clone import ROOT

STUDIES = ["robustness", "evasion", "poisoning", "privacy", "extraction", "guard"]
NOTEBOOKS = sorted(path.relative_to(ROOT) for path in ROOT.glob("notebooks/*/*.ipynb"))
ROW = re.compile(r"^\| \[(\w+)\]\((\w+)\.ipynb\) \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)  # and what is tried


def kernel_of(notebook: Path) -> str:
    """The name of the kernel that runs a notebook."""
    return str(nbformat.read(ROOT / notebook, as_version=4).metadata.kernelspec.name)


@pytest.fixture(scope="module")
def stages() -> list[Declared]:
    with chdir(ROOT):
        return declared()


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_s_readme_lists_its_notebooks_with_their_titles(study: str) -> None:
    """Each once, the summary last."""
    rows = ROW.findall((ROOT / "notebooks" / study / "README.md").read_text())
    notebooks = [path for path in NOTEBOOKS if path.parent.name == study]
    titles = {path.stem: title_of(nbformat.read(ROOT / path, as_version=4)) for path in notebooks}
    assert [name for name, _, _ in rows] == [target for _, target, _ in rows]
    assert Counter((name, title) for name, _, title in rows) == Counter(titles.items())
    assert rows[-1][0] == "summary"


def test_stage_code_depends_on_every_notebook_and_nothing_that_is_not_there(stages: list[Declared]) -> None:
    """Else an edit of one would not be seen."""
    (code,) = (stage for stage in stages if stage.key == "root.code")
    assert {Path(dep) for dep in code.deps if dep.startswith("notebooks/")} == set(NOTEBOOKS)
    assert all((ROOT / dep).exists() for dep in code.deps)


def test_every_notebook_is_run_by_a_stage_of_its_own_study(stages: list[Declared]) -> None:
    """And leaves its results under that study's name."""
    ran = [stage for stage in stages if stage.runs_notebook]
    assert {stage.notebook for stage in ran} == set(NOTEBOOKS)
    for stage in ran:
        assert stage.notebook.parent == Path("notebooks") / stage.study
        assert stage.folder.parts[:2] in (("results", stage.study), ("results", "summary"))


def test_every_stage_of_ours_tracks_its_own_key(stages: list[Declared]) -> None:
    """So it runs again when the code changes that it can reach; only notebooks of the other kernel reach none."""
    with Repo(str(ROOT)) as repo:
        params = {
            key_of(stage.addressing): {
                name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params
            }
            for stage in repo.index.stages
        }
    for stage in stages:
        other = stage.runs_notebook and kernel_of(stage.notebook) == "aisec-legacy"
        expected = set() if other or stage.key == "root.code" else {stage.key}
        assert params[stage.key] == expected, stage.key


def test_studies_come_in_the_order_of_collect_and_have_a_summary(stages: list[Declared]) -> None:
    """Each is a folder, and each has experiments."""
    assert studies(stages) == STUDIES
    assert {path.parent.name for path in pipeline_files()[1:]} == set(STUDIES)
    for study in STUDIES:
        assert experiments(stages, study)
        assert [stage.name for stage in stages if stage.study == study and stage not in experiments(stages, study)] == [
            "summary"
        ]


def test_a_cell_knows_its_place_in_the_grid(stages: list[Declared]) -> None:
    """Of a matrix by its axes; of a list of notebooks by its name."""
    found = {stage.key: stage for stage in stages}
    cell = found["robustness.evaluate@trades-none-square-1"]
    assert cell.axes == {"objective": "trades", "defense": "none", "attack": "square", "seed": "1"}
    assert cell.address == "notebooks/robustness/dvc.yaml:evaluate@trades-none-square-1"
    assert key_of(cell.address) == cell.key
    assert cell.page == Path("results/robustness/evaluate/trades-none-square-1/evaluate.html")
    assert {"attacks.square", "curve", "data", "defenses.none", "device", "model"} == set(cell.parameters)
    assert found["evasion.notebook@text"].axes == {"notebook": "text"}
    assert found["evasion.svm_secml"].parameters == (), "of the other kernel: its settings stand in its command"
    assert found["root.table"].address == "table"
    assert key_of("table") == "root.table"


def test_the_pipeline_is_short_enough_to_be_read() -> None:
    """All dvc.yaml together."""
    assert (
        sum(len(file.read_text().splitlines()) for file in [ROOT / "dvc.yaml", *ROOT.glob("notebooks/*/dvc.yaml")])
        <= 450
    )
