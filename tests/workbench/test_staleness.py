"""Which stages a change re-runs, exactly; on the small pipeline, and of attacks on the lab's own."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import pytest
from dvc.repo import Repo

from tests.clone import Clone, Project

pytestmark = [pytest.mark.xdist_group("small"), pytest.mark.slow]

PACKAGE = "aisec_lab"
SMALL = "notebooks/small/dvc.yaml"
TRAIN = {f"{SMALL}:train@standard-0", f"{SMALL}:train@standard-1"}
NES, APGD = f"{SMALL}:attack@nes-standard", f"{SMALL}:attack@apgd_ce-standard"
TABLE, READER, SUMMARY, WORDS = (
    f"{SMALL}:{name}" for name in ("notebook@table", "notebook@reader", "summary", "words")
)
OF_OURS = {*TRAIN, NES, APGD, TABLE, SUMMARY}  # the notebooks that read the configuration
CODE = {"code"}


def added(text: str) -> Callable[[str], str]:
    """An edit that adds lines at the end."""
    return lambda before: f"{before}\n{text}\n"


def put(old: str, new: str) -> Callable[[str], str]:
    """An edit that puts one text in the place of another, which must be there."""

    def edit(before: str) -> str:
        assert old in before
        return before.replace(old, new, 1)

    return edit


class Change(NamedTuple):
    """An edit of a file, or a new one, and the stages that it makes stale before any of them has run."""

    file: str
    edit: Callable[[str], str]
    stale: set[str]


CODE_LINE, COMMENT = added("CHANGED = 1"), added("# changed")
CHANGES = {
    "an attack": Change(f"{PACKAGE}/attacks/evasion/black_box/nes.py", CODE_LINE, CODE | {NES}),
    "another attack": Change(f"{PACKAGE}/attacks/evasion/gradient/apgd.py", CODE_LINE, CODE | {APGD}),
    "training": Change(f"{PACKAGE}/models/training/fit.py", CODE_LINE, CODE | TRAIN | {TABLE}),
    "a comment in an attack": Change(f"{PACKAGE}/attacks/evasion/black_box/nes.py", COMMENT, CODE),
    "a docstring of an attack": Change(f"{PACKAGE}/attacks/evasion/black_box/nes.py", put('"""', '"""Changed. '), CODE),
    "a new attack": Change(f"{PACKAGE}/attacks/evasion/new.py", added("def new(): ..."), CODE),
    "a name that a room exports": Change(
        f"{PACKAGE}/attacks/__init__.pyi",
        put(
            "from .evasion.black_box.nes", "from .evasion.black_box.nes import NES as New\nfrom .evasion.black_box.nes"
        ),
        CODE,
    ),
    "a new configuration file": Change("configs/attack/new.yaml", added("_target_: aisec_lab.attacks.NES"), set()),
    "a notebook": Change("notebooks/small/table.ipynb", put("right = ", "right = 0 + "), CODE | {TABLE}),
    "a notebook's prose": Change("notebooks/small/table.ipynb", put("What does a", "What will a"), CODE | {TABLE}),
    "a page beside a notebook": Change("notebooks/small/README.md", added("More."), set()),
    "collect": Change(f"{PACKAGE}/workbench/collect.py", CODE_LINE, CODE | {"collect@small", "table"}),
    "the report": Change(f"{PACKAGE}/workbench/report.py", CODE_LINE, CODE | {"report"}),
    "a template of pages": Change(f"{PACKAGE}/workbench/page.html.j2", added("<!-- -->"), CODE | {"report"}),
    "what notebooks know of the configuration": Change(
        f"{PACKAGE}/workbench/configuration.py", CODE_LINE, CODE | OF_OURS | {"collect@small", "table", "report"}
    ),
    "what runs a notebook": Change(f"{PACKAGE}/workbench/execute.py", CODE_LINE, CODE),
    "a command of another kind": Change(f"{PACKAGE}/workbench/vault_command.py", CODE_LINE, CODE),
}


@pytest.fixture
def project(small: Project) -> Iterator[Project]:
    """The small pipeline, run, and brought back afterwards."""
    made = {name: (small.root / name).read_bytes() for name in ("code.json", "reach.json")}
    yield small
    small.git("checkout", "-q", ".")
    small.git("clean", "-qfd")
    for name, content in made.items():
        (small.root / name).write_bytes(content)


def stale(project: Project) -> set[str]:
    """The stages that are not as they were run, once `aisec code` has looked at the sources."""
    seen = []
    for _ in range(2):
        with chdir(project.root), Repo() as repo:
            seen.append(set(repo.status()))
        project.aisec("code")
    return (seen[0] & CODE) | (seen[1] - CODE)


def change(project: Project, one: Change) -> None:
    """Make an edit."""
    path = project.root / one.file
    path.write_text(one.edit(path.read_text() if path.exists() else ""))


def test_nothing_is_stale_at_first(project: Project) -> None:
    """Else the table below would show nothing."""
    assert stale(project) == set()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_makes_stale_what_it_reaches_and_nothing_else(name: str, project: Project) -> None:
    """Stage `code` always looks, in seconds; what reads the results of stale stages follows where these change."""
    change(project, CHANGES[name])
    assert stale(project) == CHANGES[name].stale


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("attacks.nes.samples=4", {NES}),
        ("fit.epochs=2", TRAIN),
        ("table.fit.epochs=2", {TABLE}),
        ("data.train_size=50", {*TRAIN, NES, APGD, "table"}),
        ("study.attacks=[apgd_ce,nes]", {SUMMARY}),
        ("words.count=50", {"shell"}),
        ("curve.attack=nes", set()),
    ],
)
def test_a_parameter_makes_stale_what_reads_it(override: str, expected: set[str], project: Project) -> None:
    """And the report, which shows the hash of params.yaml."""
    project.aisec("compose", override)
    assert stale(project) == expected | {"code", "report"}


def test_what_the_dry_run_says_is_what_runs(project: Project) -> None:
    """The stages that are stale, and those that may follow."""
    change(project, CHANGES["an attack"])
    project.aisec("code")
    said = project.run("aisec", "repro", "--dry")
    assert set(re.findall(r"^would run +(\S+):", said, re.MULTILINE)) == {"code", NES}
    follow = re.findall(r"^may run +(\S+):", said, re.MULTILINE)
    assert {"collect@small", "table", SUMMARY, "report"} <= set(follow)


def test_an_import_that_the_key_does_not_cover_fails_its_stage(small: Project, tmp_path: Path) -> None:
    """Planted where no analysis can see it; one line, exit code 2, and no result."""
    project = small.copy(tmp_path / "project")
    table = project.root / "notebooks/small/table.ipynb"
    planted = "__import__('importlib').import_module('.'.join(['aisec_lab', 'attacks', 'evasion', 'black_box', 'nes']))"
    table.write_text(table.read_text().replace("right = ", f'{planted}\\n",\n    "right = ', 1))
    output = project.run("aisec", "repro", TABLE, code=1)
    assert "exit code 2" in output
    assert output.count("this stage imported aisec_lab.attacks.evasion.black_box.nes, which its key in code.json") == 1
    assert not (project.root / "results/small/table").exists()


def test_attacks_of_the_lab_s_own_pipeline_reach_the_stages_that_run_them(tmp_path: Path) -> None:
    """By their keys: NES stands in two notebooks' settings, APGD in those of most; a new file is in none."""
    project = Clone(tmp_path / "project", ("aisec_lab/", "configs/", "notebooks/", ".dvc", "dvc.yaml", "params.yaml"))

    def keys() -> dict[str, dict[str, str]]:
        project.aisec("code")
        found = json.loads((project.root / "code.json").read_text())
        return {f"{study}.{name}": key for study, stages in found.items() for name, key in stages.items()}

    before = keys()

    def reached(one: Change) -> set[str]:
        change(project, one)
        after = keys()
        project.git("checkout", "-q", ".")
        project.git("clean", "-qfd")
        return {name for name, key in after.items() if key != before[name]}

    black_box = {"evasion.model@black_box-standard", "evasion.model@black_box-trades"}
    assert reached(CHANGES["an attack"]) == black_box
    apgd = reached(CHANGES["another attack"])
    assert {name for name in apgd if name.startswith("robustness.evaluate@")} == {
        f"robustness.evaluate@{objective}-none-{attack}-{seed}"
        for objective in ("standard", "adversarial_training", "trades")
        for attack in ("apgd_ce", "apgd_t")
        for seed in (0, 1)
    }
    assert not {name for name in apgd if name.startswith("robustness.train@")}
    assert reached(CHANGES["a new attack"]) == set()
    assert reached(CHANGES["a docstring of an attack"]) == set()
