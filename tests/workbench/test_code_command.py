"""`aisec code`, `aisec why`, `aisec reaches`, and what a stage does with its key, in a small project with DVC."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from aisec_lab.workbench.command import main
from aisec_lab.workbench.reaches import stages_reached
from aisec_lab.workbench.stage import enter_stage, leave_stage
from aisec_lab.workbench.why import differences, explain, find
from tests.clone import ROOT, Clone
from tests.workbench.planted import LAZY, edit, plant, stage, write_notebook

PLANTED = {  # a room without third-party imports, beside the real workbench
    "aisec_lab/planted/__init__.py": LAZY,
    "aisec_lab/planted/__init__.pyi": "from .one import One as One\nfrom .two import Two as Two\n",
    "aisec_lab/planted/one.py": "class One:\n    def __init__(self, size=1):\n        self.size = size\n",
    "aisec_lab/planted/two.py": "class Two:\n    size = 2\n",
}
PIPELINE = {
    "params.yaml": "model: {_target_: aisec_lab.planted.One, size: 5}\nother: {levels: [0.1], deep: {eps: 0.15}}\n",
    "dvc.yaml": (
        "stages:\n"
        "  code:\n"
        "    cmd: aisec code\n"
        "    deps: [aisec_lab, params.yaml, notebooks/small/first.ipynb, notebooks/small/second.ipynb]\n"
        "    outs: [code.json, reach.json]\n"
        "  words: {cmd: echo one > data/words, outs: [data/words]}\n"
    ),
    "notebooks/small/dvc.yaml": (
        "vars: [../../params.yaml]\n"
        "stages:\n"
        "  first:\n"
        "    wdir: ../..\n"
        "    cmd: aisec run notebooks/small/first.ipynb results/small/first\n"
        "    params: [code.json: [small.first]]\n"
        "    deps: [notebooks/small/first.ipynb, data/words]\n"
        "    outs: [results/small/first]\n"
        "  second:\n"
        "    wdir: ../..\n"
        "    matrix: {attack: [a, b]}\n"
        "    cmd: aisec run notebooks/small/second.ipynb results/small/second/${key} -p attack=${key}\n"
        '    params: [code.json: ["small.second@${key}"]]\n'
        "    deps: [notebooks/small/second.ipynb, results/small/first]\n"
        '    outs: ["results/small/second/${key}"]\n'
    ),
    "data/.gitignore": "/words\n",
    ".dvcignore": "__pycache__/\n",
}
SAVE = "from pathlib import Path\nPath(out, 'saved.txt').write_text(str(found))"
FIRST = "notebooks/small/dvc.yaml:first"


class Small(Clone):
    """Two notebooks and our workbench, with git and DVC."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT / "aisec_lab", root / "aisec_lab", ignore=shutil.ignore_patterns("__pycache__"))
        plant(root, PLANTED | PIPELINE)
        write_notebook(
            root / "notebooks/small/first.ipynb",
            "from hydra.utils import instantiate\nfrom aisec_lab.workbench import configure\n"
            'cfg = configure([], reads=["model"])\nfound = instantiate(cfg.model).size',
            SAVE,
        )
        write_notebook(
            root / "notebooks/small/second.ipynb", "from aisec_lab.planted import Two\nfound = Two.size", SAVE
        )
        self.git("init", "-q")
        self.run("dvc", "init", "-q")

    def write(self, name: str, text: str) -> None:
        """Replace a file."""
        (self.root / name).write_text(text)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The project after a `dvc repro` of everything."""
    project = Small(tmp_path_factory.mktemp("small"))
    project.run("dvc", "repro", "-P")
    return project


@pytest.fixture
def small(ran: Small) -> Iterator[Small]:
    """The same; what a test does to it is undone, but for the memory."""
    kept = {path: path.read_bytes() for path in ran.root.rglob("*") if path.is_file() and ".git" not in path.parts}
    yield ran
    for path in ran.root.rglob("*"):
        if path.is_file() and path not in kept and not {".git", ".dvc", "__pycache__"} & set(path.parts):
            path.unlink()
    for path, content in kept.items():
        if ".dvc" not in path.parts and (not path.exists() or path.read_bytes() != content):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(content)


@pytest.fixture
def standing(small: Small, monkeypatch: pytest.MonkeyPatch) -> Small:
    """The same, and we stand in it: its commands run in this process."""
    monkeypatch.chdir(small.root)
    return small


pytestmark = pytest.mark.xdist_group("small project")


def test_the_stages_run_and_are_up_to_date(small: Small) -> None:
    """The notebooks as written hold nothing of the question what they imported."""
    assert (small.root / "results/small/first/saved.txt").read_text() == "5"
    notebook = json.loads((small.root / "results/small/first/first.ipynb").read_bytes())
    assert len(notebook["cells"]) == 5, "the four, and papermill's cell of parameters"
    assert "modules" not in (small.root / "results/small/first/first.ipynb").read_text()
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert "up to date" in small.run("dvc", "repro", "-P")
    assert small.run("aisec", "why", FIRST) == "small.first is up to date\n"


def test_dvc_runs_again_what_an_edit_reaches_and_why_says_so(small: Small) -> None:
    """An edit of a module; then one of a docstring, which runs nothing but `code`."""
    edit(small.root, "aisec_lab/planted/two.py", "size = 2", "size = 3")
    assert small.run("aisec", "why", "second@a") == (
        "small.second@a is stale\n  code      edited aisec_lab.planted.two\n"
    )
    done = small.run("dvc", "repro", "-P")
    assert [line.split("'")[1] for line in done.splitlines() if line.startswith("Running stage")] == [
        "code",
        "notebooks/small/dvc.yaml:second@a",
        "notebooks/small/dvc.yaml:second@b",
    ]
    assert (small.root / "results/small/second/a/saved.txt").read_text() == "3"
    edit(small.root, "aisec_lab/planted/two.py", "class Two:\n", 'class Two:\n    """Two."""\n\n')
    done = small.run("dvc", "repro", "-P")
    assert [line.split("'")[1] for line in done.splitlines() if line.startswith("Running stage")] == ["code"]


WHY = {
    "a parameter, leaf by leaf": ({"params.yaml": ("size: 5", "size: 6")}, "first", ["parameter model.size: 5 -> 6"]),
    "one that it does not read": ({"params.yaml": ("0.15", "0.2")}, "first", []),
    "its notebook": (
        {"notebooks/small/first.ipynb": ("A title", "A")},
        "first",
        ["input     notebooks/small/first.ipynb modified"],
    ),
    "another module": (
        {"notebooks/small/second.ipynb": ("import Two", "import One, Two")},
        "second@a",
        [
            "code      now reaches aisec_lab.planted.One",
            "code      now reaches aisec_lab.planted.one",
            "input     notebooks/small/second.ipynb modified",
        ],
    ),
    "a module moved": (
        {"aisec_lab/planted/__init__.pyi": ("from .two import Two as Two", "from .three import Two as Two")},
        "second@a",
        [
            "code      aisec_lab.planted.Two is now of aisec_lab.planted.three",
            "code      now reaches aisec_lab.planted.three",
            "code      no longer reaches aisec_lab.planted.two",
        ],
    ),
    "an output": ({"results/small/first/saved.txt": ("5", "7")}, "first", ["output    results/small/first modified"]),
    "its command": (
        {
            "notebooks/small/dvc.yaml": (
                "results/small/first\n    params",
                "results/small/first -p attack=x\n    params",
            )
        },
        "first",
        ["command   changed; it is now `aisec run notebooks/small/first.ipynb results/small/first -p attack=x`"],
    ),
    "a stage before it": ({"params.yaml": ("size: 5", "size: 6")}, "second@a", ["waits for small.first"]),
}


@pytest.mark.parametrize(("edits", "name", "expected"), WHY.values(), ids=WHY)
def test_why_names_what_changed(
    standing: Small, edits: dict[str, tuple[str, str]], name: str, expected: list[str]
) -> None:
    """Each reason on a line of its own, and no other."""
    plant(standing.root, {"aisec_lab/planted/three.py": "class Two:\n    size = 2\n"})
    for file, (old, new) in edits.items():
        edit(standing.root, file, old, new)
    head, *reasons = explain(name).splitlines()
    assert [reason.strip() for reason in reasons] == expected
    waits = bool(expected) and expected[0].startswith("waits")
    assert ("is up to date" in head) is (not expected or waits)
    assert ("waits for stages" in head) is waits


def test_why_without_a_memory_and_before_a_first_run_says_so(standing: Small) -> None:
    """What it cannot know it does not guess."""
    edit(standing.root, "aisec_lab/planted/one.py", "size=1", "size=2")
    edit(standing.root, "params.yaml", "size: 5", "size: 6")
    (standing.root / ".dvc/tmp/aisec/meanings").rename(standing.root / ".dvc/tmp/aisec/gone")
    said = explain("first")
    (standing.root / ".dvc/tmp/aisec/gone").rename(standing.root / ".dvc/tmp/aisec/meanings")
    assert "code      changed, but this machine has no memory of" in said
    assert "parameter model: ? -> " in said
    (standing.root / "notebooks/small/dvc.lock").unlink()
    assert "never run, or not recorded in its dvc.lock" in explain("first")


REACHES = {
    "aisec_lab/planted/one.py": "reaches 1 stage\n  small  first\n",
    "aisec_lab/planted/two.py": "reaches 2 stages\n  small  second@* (2)\n",
    "aisec_lab/planted/__init__.pyi": "reaches 3 stages\n  small  first second@* (2)\n",
    "aisec_lab/planted": "reaches 3 stages\n  small  first second@* (2)\n",
    "aisec_lab/workbench/execute.py": "reaches none\n",
    "notebooks/small/first.ipynb": "reaches 1 stage\n  small  first\n",
    "notebooks/small/dvc.yaml": "reaches 3 stages\n  small  first second@* (2)\n",
    "data/words": "reaches 1 stage\n  small  first\n",
    "results/small/first/saved.txt": "reaches 2 stages\n  small  second@* (2)\n",
    "params.yaml": "reaches 1 stage\n  small  first\n",
    "configs/config.yaml": (
        "reaches none\n  through   other.deep.eps other.levels\n  and what its list `defaults` chooses, file by file\n"
    ),
    "configs/model/one.yaml": "reaches 1 stage\n  through   model._target_ model.size\n  small  first\n",
    "configs/model/two.yaml": "reaches none\n",
    "README.md": "reaches none\n",
}


@pytest.mark.parametrize(("file", "expected"), REACHES.items())
def test_reaches_lists_the_stages_of_a_file(standing: Small, file: str, expected: str) -> None:
    """Modules, stubs, folders, notebooks, inputs, what lies within one, and configuration by composing it."""
    configs = {
        "configs/config.yaml": "defaults: [_self_, model: one]\nother: {levels: [0.1], deep: {eps: 0.15}}\n",
        "configs/model/one.yaml": "_target_: aisec_lab.planted.One\nsize: 5\n",
        "configs/model/two.yaml": "_target_: aisec_lab.planted.Two\nsize: 5\n",
    }
    plant(standing.root, configs | {"README.md": "x"})
    assert stages_reached(Path(file)) == f"{file} {expected}".rstrip()


@pytest.mark.parametrize(
    ("command", "name", "message"),
    [
        ("why", "firts", "no stage firts: did you mean small.first?"),
        ("why", "second", "no stage second: did you mean small.second@a, small.second@b?"),
        ("reaches", "nowhere.py", "no nowhere.py: name a file of the project, from where you stand"),
    ],
)
def test_a_name_that_is_not_there_is_one_line(standing: Small, command: str, name: str, message: str) -> None:
    """And exit code 2."""
    done = CliRunner().invoke(main, [command, name])
    assert (done.exit_code, done.stderr) == (2, f"aisec: {message}\n")


def test_reaches_takes_a_path_from_where_one_stands(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.root / "notebooks/small")
    done = CliRunner().invoke(main, ["reaches", "../../aisec_lab/planted/one.py"])
    assert done.output == "aisec_lab/planted/one.py reaches 1 stage\n  small  first\n"


def test_what_the_key_does_not_cover_fails_the_stage(small: Small) -> None:
    """An import whose name is made while the notebook runs: exit code 2, one line with the mend, nothing left."""
    edit(
        small.root,
        "notebooks/small/second.ipynb",
        "from aisec_lab.planted import Two",
        "import importlib\\n\",\n    \"Two = importlib.import_module('aisec_lab.' + 'planted.two').Two",
    )
    said = small.run("dvc", "repro", "notebooks/small/dvc.yaml:second@a", code=255)
    (line,) = (line for line in said.splitlines() if line.startswith("aisec: "))
    assert line == (
        "aisec: this stage imported aisec_lab.planted.two, which its key in code.json does not cover: "
        "import it by name in the notebook or name it as a _target_"
    )
    assert not (small.root / "results/small/second/a").exists()
    out = small.run("aisec", "run", "notebooks/small/second.ipynb", "scratch/second")
    assert "does not cover" not in out, "by hand nothing is refused"


@pytest.fixture
def inside(small: Small, monkeypatch: pytest.MonkeyPatch) -> Small:
    """As DVC runs stage `first`."""
    monkeypatch.setenv("DVC_STAGE", FIRST)
    monkeypatch.chdir(small.root)
    return small


STALE = {
    "no code.json": ("code.json", None, "no code.json, .*run `dvc repro -f code`"),
    "no reach.json": ("reach.json", None, "no reach.json, .*run `dvc repro -f code`"),
    "no key": ("code.json", ('"first"', '"former"'), "code.json has no key of small.first: run `dvc repro -f code`"),
    "a parameter that the key lacks": ("code.json", ('"model"', '"mode"'), "code.json has no model in the key"),
    "a parameter since": (
        "params.yaml",
        ("size: 5", "size: 6"),
        "model in params.yaml changed .*run the pipeline again",
    ),
    "a module since": ("aisec_lab/planted/one.py", ("size=1", "size=2"), "aisec_lab.planted.one changed since"),
    "a module gone": ("aisec_lab/planted/one.py", None, "aisec_lab.planted.one changed since"),
}


@pytest.mark.parametrize(("file", "change", "message"), STALE.values(), ids=STALE)
def test_a_stage_whose_key_is_not_of_what_lies_there_is_refused(
    inside: Small, file: str, change: tuple[str, str] | None, message: str
) -> None:
    """Before it runs: its result would be recorded under another key."""
    enter_stage(["model"])
    if change:
        edit(inside.root, file, *change)
    else:
        (inside.root / file).unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        enter_stage(["model"])


def test_a_change_that_cannot_matter_stops_no_stage(inside: Small) -> None:
    """A parameter that it does not read, a comment, a module that it does not reach."""
    edit(inside.root, "params.yaml", "0.15", "0.2")
    edit(inside.root, "aisec_lab/planted/one.py", "size=1", "size=1  # a comment\n        ")
    edit(inside.root, "aisec_lab/planted/two.py", "2", "3")
    enter_stage(["model"])
    leave_stage(["aisec_lab", "aisec_lab.planted", "aisec_lab.planted.one"])


def test_an_edit_while_the_notebook_runs_is_refused_at_its_end(inside: Small) -> None:
    enter_stage(["model"])
    edit(inside.root, "aisec_lab/planted/one.py", "size=1", "size=2")
    with pytest.raises(ValueError, match="aisec_lab.planted.one changed since"):
        leave_stage([])


def test_by_hand_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where there is no project."""
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    enter_stage(["model"])
    leave_stage(["aisec_lab.attacks"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        ({"a": {"b": 0.15}, "c": 1}, {"a": {"b": 0.2}, "c": 1}, ["x.a.b: 0.15 -> 0.2"]),
        ({"a": 1}, {"b": 1}, ["x.a: 1 -> removed", "x.b: added 1"]),
        ([1, 2], [1, 3], ["x: [1, 2] -> [1, 3]"]),
        ({"a": 1}, {"a": {"b": 1}}, ['x.a: 1 -> {"b": 1}']),
        (1, 1.0, ["x: 1 -> 1.0"]),
        ({"a": None}, {"a": None}, []),
    ],
)
def test_values_are_told_apart_leaf_by_leaf(was: object, now: object, expected: list[str]) -> None:
    assert list(differences(was, now, "x")) == expected


def test_a_stage_is_found_by_each_of_its_names() -> None:
    """One that two studies share is not, without the study."""
    stages = [stage("a", "train@x", ""), stage("b", "train@x", ""), stage("b", "only", ""), stage("root", "data", "")]
    for name, key in [
        ("notebooks/a/dvc.yaml:train@x", "a.train@x"),
        ("b.train@x", "b.train@x"),
        ("only", "b.only"),
        ("data", "root.data"),
        ("dvc.yaml:data", "root.data"),
    ]:
        assert find(name, stages).key == key
    with pytest.raises(ValueError, match="of several studies: name one of a.train@x, b.train@x"):
        find("train@x", stages)
