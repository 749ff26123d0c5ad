"""The key of each stage: which edit changes which, exactly."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from aisec_lab.workbench.configuration import read_parameters
from aisec_lab.workbench.keys import CODE, REACH, Keys, current_keys, keys_of, write_keys
from aisec_lab.workbench.memory import Memory
from aisec_lab.workbench.notebook_code import python_of, uses_of
from aisec_lab.workbench.parameters import hash_of, hashes_of
from aisec_lab.workbench.sources import Sources
from aisec_lab.workbench.stages import Declared
from tests.workbench.planted import FILES, edit, plant, stage, write_notebook

PARAMS = """
attacks:
  pgd:
    {_target_: aisec_lab.attacks.PGD, steps: 10, of: [{_target_: torch.nn.Loss}, {_target_: aisec_lab.attacks.FGSM}]}
  nested: {attacks: [{inner: {_target_: aisec_lab.attacks.evasion.nes.NES}}]}
fit: {_target_: aisec_lab.models.Fit, epochs: 3}
seeds: [0, 1]
"""
COMMANDS = {
    "aisec_lab/data/__init__.py": '"""Data."""\n',
    "aisec_lab/data/prepare.py": "from aisec_lab.models.words import WORDS\n",
    "aisec_lab/workbench/__init__.py": '"""The workbench."""\n',
    "aisec_lab/workbench/execute.py": "x = 1\n",
}
ATTACK, TRAIN = "notebooks/evasion/attack.ipynb", "notebooks/robustness/train.ipynb"
STAGES = [
    stage("root", "code", "aisec code"),
    stage("root", "data", "aisec data digits"),
    stage("root", "shell", "sort data/digits"),
    stage("robustness", "train@0", f"aisec run {TRAIN} results/train", "fit"),
    stage("evasion", "attack@pgd", f"aisec run {ATTACK} results/pgd", "attacks.pgd"),
    stage("evasion", "attack@nested", f"aisec run {ATTACK} results/nested", "attacks.nested"),
    stage("evasion", "legacy", "aisec run notebooks/evasion/legacy.ipynb results/legacy", "attacks.pgd"),
]
PGD, NESTED, TRAINED, DATA = "evasion.attack@pgd", "evasion.attack@nested", "robustness.train@0", "root.data"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    plant(tmp_path, FILES | COMMANDS | {"params.yaml": PARAMS})
    write_notebook(tmp_path / ATTACK, "%matplotlib inline\nfrom aisec_lab.attacks import Oracle")
    write_notebook(tmp_path / TRAIN, "from hydra.utils import instantiate")
    write_notebook(tmp_path / "notebooks/evasion/legacy.ipynb", "import secml", kernel="aisec-legacy")
    return tmp_path


def keys(project: Path) -> Keys:
    return keys_of(project, STAGES, Sources(project))


def flat(keys: Keys) -> dict[str, dict[str, str]]:
    return {f"{study}.{name}": entry for study, names in keys.code.items() for name, entry in names.items()}


def test_a_stage_reaches_its_notebook_s_imports_and_its_parameters_targets(project: Path) -> None:
    """Targets in lists too; nothing for a shell command or the other kernel, and stage `code` has no key."""
    reached = {
        key: {module.removeprefix("aisec_lab.") for module in modules} & {"models.fit", "attacks.oracle"}
        | {module.rpartition(".")[2] for module in modules} & {"gradient", "balls", "nes", "prepare", "words"}
        for key, modules in keys(project).stages.items()
    }
    assert reached == {
        DATA: {"prepare", "words"},
        "root.shell": set(),
        TRAINED: {"models.fit"},
        PGD: {"attacks.oracle", "gradient", "balls"},
        NESTED: {"attacks.oracle", "nes", "models.fit"},
        "evasion.legacy": set(),
    }
    assert {key: entry.keys() for key, entry in flat(keys(project)).items()} == {
        DATA: {"code"},
        "root.shell": {"code"},
        TRAINED: {"code", "fit"},
        PGD: {"code", "attacks.pgd"},
        NESTED: {"code", "attacks.nested"},
        "evasion.legacy": {"code", "attacks.pgd"},
    }


class Edit(NamedTuple):
    """New files, and texts that are replaced in files; then the keys that change, and what in them."""

    new: dict[str, str]
    replaced: list[tuple[str, str, str]]
    changed: dict[str, set[str]]


EVASION, STUB = "aisec_lab/attacks/evasion", "aisec_lab/attacks/__init__.pyi"
EXPORT = "from .evasion.nes import NES as NES"
EDITS = {
    "a docstring": Edit({}, [(f"{EVASION}/gradient.py", "Projected.", "Madry.")], {}),
    "a comment": Edit({}, [(f"{EVASION}/gradient.py", "# a comment", "# another")], {}),
    "a function": Edit({}, [(f"{EVASION}/gradient.py", "return 1", "return 2")], {PGD: {"code"}}),
    "a function that is imported when another is called": Edit(
        {}, [("aisec_lab/models/fit.py", "plain(): ...", "plain(x): ...")], {NESTED: {"code"}, TRAINED: {"code"}}
    ),
    "a new attack that nothing names": Edit({f"{EVASION}/new.py": "class New: ..."}, [], {}),
    "a new attack that its room exports": Edit(
        {f"{EVASION}/new.py": "class New: ..."}, [(STUB, EXPORT, f"{EXPORT}\nfrom .evasion.new import New as New")], {}
    ),
    "an export that stands there twice": Edit({}, [(STUB, EXPORT, f"{EXPORT}\n{EXPORT}")], {}),
    "an export that leads elsewhere": Edit(
        {f"{EVASION}/new.py": "class PGD: ..."},
        [(STUB, ".evasion.gradient import PGD", ".evasion.new import PGD")],
        {PGD: {"code"}},
    ),
    "an export that leads to another module that is reached anyway": Edit(
        {}, [(STUB, ".evasion.gradient import FGSM", ".oracle import FGSM")], {PGD: {"code"}}
    ),
    "a parameter": Edit(
        {},
        [("params.yaml", "steps: 10", "steps: 11")],
        {PGD: {"attacks.pgd"}, "evasion.legacy": {"attacks.pgd"}},
    ),
    "a parameter that no stage tracks": Edit({}, [("params.yaml", "[0, 1]", "[0]")], {}),
    "a target": Edit(
        {},
        [("params.yaml", "aisec_lab.attacks.PGD", "aisec_lab.attacks.NES")],
        {PGD: {"code", "attacks.pgd"}, "evasion.legacy": {"attacks.pgd"}},
    ),
    "an import of a notebook": Edit({}, [(ATTACK, "import Oracle", "import Oracle, FGSM")], {NESTED: {"code"}}),
    "prose of a notebook": Edit({}, [(ATTACK, "# A title", "# Another title")], {}),
    "a file that a module reads": Edit({}, [("aisec_lab/models/words.txt", "two", "three")], {DATA: {"code"}}),
    "what a command runs": Edit({}, [("aisec_lab/data/prepare.py", "WORDS", "WORDS as W")], {DATA: {"code"}}),
    "the runner": Edit({}, [("aisec_lab/workbench/execute.py", "1", "2")], {}),
    "code in the __init__ of a room": Edit(
        {},
        [("aisec_lab/attacks/__init__.py", "import lazy_loader", "import lazy_loader\n\nLIMIT = 2")],
        {PGD: {"code"}, NESTED: {"code"}},
    ),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_an_edit_changes_exactly_the_keys_that_it_should(project: Path, change: Edit) -> None:
    """The stages, and in their entries the code or the parameter."""
    before = flat(keys(project))
    plant(project, change.new)
    for text in change.replaced:
        edit(project, *text)
    after = flat(keys(project))
    changed = {key: {name for name in before[key] if before[key][name] != after[key][name]} for key in before}
    assert {key: names for key, names in changed.items() if names} == change.changed
    assert after.keys() == before.keys()


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (stage("a", "b", "aisec launch x"), "a.b runs `aisec launch`, .*add it to COMMANDS in keys.py"),
        (stage("a", "b", "python -m aisec_lab.data"), "begins with `aisec`"),
        (stage("a", "b", "cd x && aisec data digits"), "begins with `aisec`"),
        (stage("a", "b", "aisec data a && aisec data b"), "make a stage of each"),
        (stage("a", "b", f"aisec run {ATTACK} out", "attacks.pdg"), "a.b tracks 'attacks.pdg', .*'attacks.pgd'.*mend"),
        (stage("a", "b", f"aisec run {ATTACK} out", "fit.epochs.x"), "which params.yaml lacks"),
        (stage("a", "b", f"aisec run {ATTACK} out", "code"), "rename"),
        (stage("a", "b", f"aisec run {ATTACK} out", "bad"), "params.yaml, bad names aisec_lab.attacks.PDG.*'PGD'"),
        (stage("a", "b", "aisec run params.yaml out"), "params.yaml is no notebook"),
    ],
)
def test_what_cannot_be_told_is_one_line_with_the_mend(project: Path, declared: Declared, message: str) -> None:
    (project / "params.yaml").write_text(f"{PARAMS}bad: {{_target_: aisec_lab.attacks.PDG}}\n")
    with pytest.raises(ValueError, match=message) as raised:
        keys_of(project, [declared], Sources(project))
    assert "\n" not in str(raised.value)


def test_a_missing_notebook_is_named(project: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no notebook x.ipynb"):
        keys_of(project, [stage("a", "b", "aisec run x.ipynb out")], Sources(project))


def test_the_files_are_the_same_whatever_the_order_and_the_memory(project: Path) -> None:
    """Bytes; and nothing is left beside them."""
    seen = []
    for stages in (STAGES, STAGES[::-1], STAGES):
        write_keys(project, current_keys(project, stages))
        seen.append([(project / name).read_bytes() for name in (CODE, REACH)])
    assert seen[0] == seen[1] == seen[2]
    assert json.loads(seen[0][0]) == keys(project).code
    assert json.loads(seen[0][1]) == {"modules": keys(project).modules, "stages": keys(project).stages}
    assert not list(project.glob(".*.part"))


def test_the_memory_knows_what_every_hash_stood_for(project: Path) -> None:
    """Of the code and of each parameter, also once they have changed; and what it never saw it does not know."""
    former = keys(project)
    write_keys(project, former)
    edit(project, "params.yaml", "steps: 10", "steps: 11")
    write_keys(project, keys(project))
    memory = Memory(project)
    entry = former.code["evasion"]["attack@pgd"]
    assert memory.recall(entry["attacks.pgd"]) == (True, read_parameters(project)["attacks"]["pgd"] | {"steps": 10})
    known, modules = memory.recall(entry["code"])
    assert known
    exports = {f"aisec_lab.attacks.{name}": "aisec_lab.attacks.evasion.gradient" for name in ("PGD", "FGSM")}
    oracle = {"aisec_lab.attacks.Oracle": "aisec_lab.attacks.oracle"}
    assert modules == {module: former.modules[module] for module in former.stages[PGD]} | exports | oracle
    assert memory.recall("0" * 12) == (False, None)


def test_the_memory_of_parsed_files_is_used_and_can_be_lost(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it nothing is parsed; when files are read in another way, or it is gone, everything is."""
    expected = current_keys(project, STAGES)
    with monkeypatch.context() as patch:
        patch.setattr("aisec_lab.workbench.sources.facts_of", None)
        assert current_keys(project, STAGES) == expected
    monkeypatch.setattr("aisec_lab.workbench.memory._reader", lambda: "another")
    assert Memory(project).parsed() == {}
    assert current_keys(project, STAGES) == expected
    (project / ".dvc/tmp/aisec/parsed.json").write_text("{")
    with pytest.raises(ValueError, match="parsed.json is damaged .*delete it"):
        current_keys(project, STAGES)


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        ("%matplotlib inline\nimport a", "pass\nimport a"),
        ("!pip list\nimport a", "pass\nimport a"),
        ("if x:\n    !ls\n    %cd y\nimport a", "if x:\n    pass\n    pass\nimport a"),
        ("files = !ls *.py\nimport a", "files = None\nimport a"),
        ("x = %env HOME\nimport a", "x = None\nimport a"),
        ("%time import a", "import a"),
        ("%%time\nimport a", "import a"),
        ("%%capture shown\nimport a\n%cd x", "import a\npass"),
        ("%%bash\nimport a", ""),
        ("%%html\n<b>", ""),
        ("a.b?\nimport a", "pass\nimport a"),
        ("?a.b\nimport a", "pass\nimport a"),
        ("text = '''\n%not a magic\n!nor this\n'''", "text = '''\n%not a magic\n!nor this\n'''"),
        ("y = 7 %3", "y = 7 %3"),
    ],
)
def test_what_only_ipython_understands_is_taken_out_of_a_cell(cell: str, python: str) -> None:
    """And no line of Python with it."""
    assert python_of(cell, "x.ipynb, cell 1") == python


def test_a_cell_that_is_no_python_is_named(tmp_path: Path) -> None:
    write_notebook(tmp_path / "x.ipynb", "import a", "def f(:")
    with pytest.raises(ValueError, match="x.ipynb, cell 3 cannot be read as Python: mend it"):
        uses_of(Sources(tmp_path), Path("x.ipynb"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ("1", 1, False),
        (None, False, False),
        ({}, [], False),
    ],
)
def test_values_have_the_same_hash_when_they_are_the_same(one: object, other: object, same: bool) -> None:
    """Twelve digits, whatever the order of the keys."""
    assert (hash_of(one) == hash_of(other)) is same
    assert len(hash_of(one)) == 12


def test_parameters_are_read_as_the_notebooks_read_them(tmp_path: Path) -> None:
    """Scalars that YAML libraries read in different ways."""
    from omegaconf import OmegaConf

    text = "a: 1e-3\nb: 2020-01-01\nc: 0x1F\nd: '1e-3'\ne: .inf\nf: on\ng: 1_000\nh: ~\n3: x\n"
    (tmp_path / "params.yaml").write_text(text)
    assert read_parameters(tmp_path) == OmegaConf.to_container(OmegaConf.create(text))
    assert hashes_of(read_parameters(tmp_path), ["a", "d"], "x")["a"] != hash_of("1e-3")
