"""Which modules code can reach, and what changes the hash of one."""

import ast
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aisec_lab.workbench.reach import Reach, target
from aisec_lab.workbench.sources import Sources
from tests.clone import ROOT
from tests.workbench.planted import FILES, LAZY, edit, imported, plant, reached

GRADIENT = {"attacks.evasion.gradient", "attacks.evasion.balls"}
NES = {"attacks.evasion.nes", "models.fit", "files"}
ROOM = GRADIENT | NES | {"attacks.oracle"}
FORMS = {
    "an exported name": ("from aisec_lab.attacks import PGD\nPGD()", GRADIENT),
    "two names, one renamed": ("from aisec_lab.attacks import (\n  PGD as P, Oracle)", GRADIENT | {"attacks.oracle"}),
    "what a function of it imports": ("from aisec_lab.attacks import NES\nNES()", NES),
    "in a function": ("def f():\n  from aisec_lab.models import Fit\n  return Fit\nf()", {"models.fit", "files"}),
    "in a lambda's default and a class": ("class A:\n  from aisec_lab.files import write", {"files"}),
    "under try": ("try:\n  from aisec_lab import files\nexcept ImportError:\n  pass", {"files"}),
    "a module by its name": ("import aisec_lab.attacks.evasion.balls", {"attacks.evasion.balls"}),
    "a module by another name": ("import aisec_lab.attacks.oracle as o\no.Oracle", {"attacks.oracle"}),
    "a module from its package": ("from aisec_lab.attacks.evasion import balls\nballs.Linf", {"attacks.evasion.balls"}),
    "a name of a module": ("from aisec_lab.attacks.evasion.balls import Linf", {"attacks.evasion.balls"}),
    "a name that a module imports": ("from aisec_lab.attacks.evasion.gradient import Linf", GRADIENT),
    "a room, one name used": ("from aisec_lab import attacks\nattacks.Oracle()", {"attacks.oracle"}),
    "a room by another name": ("import aisec_lab.attacks as a\na.Oracle", {"attacks.oracle"}),
    "a room by its name": ("import aisec_lab.attacks\naisec_lab.attacks.Oracle", {"attacks.oracle"}),
    "a room that another import has loaded": (
        "import aisec_lab.attacks.oracle\nimport aisec_lab.models.fit\naisec_lab.attacks.PGD",
        GRADIENT | {"attacks.oracle", "models.fit", "files"},
    ),
    "a room, nothing used": ("import aisec_lab.attacks", set()),
    "a room, what is used can't be told": ("from aisec_lab import attacks\ngetattr(attacks, 'Oracle')", ROOM),
    "a room under a second name": ("import aisec_lab.attacks\nroom = aisec_lab.attacks\nroom.Oracle", ROOM),
    "the package, what is used can't be told": (
        "import aisec_lab, aisec_lab.models\nmodels = vars(aisec_lab)['models'].plain",
        ROOM,
    ),
    "everything of a room": ("from aisec_lab.attacks import *\nPGD", ROOM),
    "everything of a module": ("from aisec_lab.models.fit import *\nFit", {"models.fit", "files"}),
    "a room out of a module": ("from aisec_lab.hub import attacks\nattacks.Oracle", {"hub", "attacks.oracle"}),
    "a room in a module, what is used can't be told": (
        "import aisec_lab.hub as h\nvars(h)['attacks'].Oracle",
        ROOM | {"hub"},
    ),
    "a room in a module": ("import aisec_lab.hub as h\nh.attacks.Oracle", {"hub", "attacks.oracle"}),
    "a room among everything of a module": ("from aisec_lab.hub import *\nattacks.Oracle", ROOM | {"hub"}),
    "for type checkers only": (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n  from aisec_lab.models import Fit\nelse:\n  import aisec_lab.files",
        {"files"},
    ),
    "text that reads like an import": ("'''from aisec_lab.models import Fit'''", set()),
    "nothing": ("import json", set()),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return plant(tmp_path)


@pytest.mark.parametrize(("code", "expected"), FORMS.values(), ids=FORMS)
def test_each_form_of_import_reaches_what_it_uses_and_no_more(package: Path, code: str, expected: set[str]) -> None:
    """Exactly the expected modules, which hold all that Python really imports."""
    found = reached(package, code)
    packages = {"aisec_lab", "aisec_lab.attacks", "aisec_lab.attacks.evasion", "aisec_lab.models"}
    assert found - packages == {f"aisec_lab.{module}" for module in expected}
    assert imported(package, code) <= found


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("aisec_lab/attacks/evasion/nes.py", "from ..oracle import Oracle"),
        ("aisec_lab/attacks/evasion/nes.py", "from .. import oracle"),
        ("aisec_lab/attacks/evasion/nes.py", "from .. import Oracle"),
        ("aisec_lab/attacks/evasion/nes.py", "from .balls import *\nfrom ...attacks.oracle import Oracle"),
        ("aisec_lab/attacks/evasion/__init__.py", "from ..oracle import Oracle"),
        ("aisec_lab/attacks/evasion/nes.py", "from aisec_lab import attacks\nx = attacks.Oracle"),
    ],
)
def test_relative_imports_and_rooms_are_followed_inside_the_package(package: Path, name: str, code: str) -> None:
    """From a module and from a package's own `__init__`."""
    (package / name).write_text(code)
    use = "import aisec_lab.attacks.evasion.nes"
    assert "aisec_lab.attacks.oracle" in reached(package, use)
    assert imported(package, use) <= reached(package, use)


TARGETS = {
    "aisec_lab.attacks.PGD": GRADIENT,
    "aisec_lab.attacks.evasion.gradient.PGD": GRADIENT,
    "aisec_lab.attacks.evasion.balls.Linf.Inner": {"attacks.evasion.balls"},
    "aisec_lab.models.fit.plain": {"models.fit", "files"},
}


@pytest.mark.parametrize(("name", "expected"), TARGETS.items())
def test_a_target_of_the_configuration_reaches_its_module(package: Path, name: str, expected: set[str]) -> None:
    """Through the room, by its module, and a name within a class."""
    sources = Sources(package)
    found = Reach(sources).of([target(name)], "params.yaml").modules
    leaves = {module for module in found if not sources.is_package(module)}
    assert leaves == {f"aisec_lab.{module}" for module in expected}


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({}, "from aisec_lab.attacks import PDG", "notebook.ipynb names .*PDG.*did you mean 'PGD'"),
        ({}, "import aisec_lab.attack", "notebook.ipynb names aisec_lab.attack, .*did you mean 'attacks'"),
        ({}, "from aisec_lab.models.fit import Fitt", "aisec_lab.models.fit has no 'Fitt': did you mean 'Fit'"),
        ({}, "from .models import Fit", "notebook.ipynb: line 1: a relative import .* full name"),
        ({}, "def f(:", "notebook.ipynb cannot be read as Python .*mend"),
        ({"aisec_lab/files.py": "from aisec_lab.data import x"}, "import aisec_lab.files", "aisec_lab/files.py names"),
        ({"aisec_lab/files.py": "def ("}, "import aisec_lab.files", "aisec_lab/files.py cannot be read"),
        (
            {"aisec_lab/models/__init__.pyi": "from .fitting import Fit as Fit"},
            "from aisec_lab.models import Fit",
            r"aisec_lab/models/__init__.pyi exports Fit from aisec_lab.models.fitting, which is not there",
        ),
        (
            {"aisec_lab/models/fit.py": "Fitted = 1"},
            "from aisec_lab.models import Fit",
            "aisec_lab.models exports from aisec_lab.models.fit, where it is not: mend the stub",
        ),
        (
            {"aisec_lab/data/__init__.py": LAZY},
            "from aisec_lab.data import x",
            "__init__.pyi imports, and there is none",
        ),
    ],
)
def test_what_is_not_there_is_one_line_with_file_and_mend(
    package: Path, changes: dict[str, str], code: str, message: str
) -> None:
    plant(package, changes)
    with pytest.raises(ValueError, match=message) as raised:
        reached(package, code)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "old", "new", "same"),
    [
        ("attacks/evasion/gradient.py", "  # a comment", "", True),
        ("attacks/evasion/gradient.py", "steps = 1", "steps    = (1)", True),
        ("attacks/evasion/gradient.py", "'''Projected.'''", "'''Projected gradient descent.'''\n", True),
        ("attacks/evasion/gradient.py", '"""Gradients."""\n', "", True),
        ("attacks/evasion/gradient.py", "return 1", "'''Said now.'''\n    return 1", True),
        ("attacks/evasion/gradient.py", "return 1", "return 2", False),
        ("attacks/evasion/gradient.py", "steps = 1", "steps = 1.0", False),
        ("attacks/evasion/gradient.py", "return 1", "return 'text'", False),
        ("attacks/__init__.py", "A room", "The room", True),
        (
            "attacks/__init__.py",
            "import lazy_loader\n",
            "from lazy_loader import attach_stub\nimport lazy_loader\n",
            True,
        ),
        ("attacks/__init__.py", "import lazy_loader\n", "import lazy_loader\nLIMIT = 3\n", False),
        ("attacks/evasion/__init__.py", "Evasion", "To evade", True),
        ("attacks/evasion/__init__.py", '"""Evasion."""', "LIMIT = 3", False),
        ("models/words.py", "", "\n", True),
    ],
)
def test_only_what_python_runs_changes_the_hash_of_a_module(
    package: Path, name: str, old: str, new: str, same: bool
) -> None:
    """Comments, layout, docstrings and exports do not; other texts do."""
    module = "aisec_lab." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    before = Sources(package).code(module)
    (package / "aisec_lab" / name).write_text(FILES[f"aisec_lab/{name}"].replace(old, new, 1))
    assert (Sources(package).code(module) == before) is same


def test_files_beside_a_module_count_where_it_reads_them(package: Path) -> None:
    """An edit, a new one below; not for a module that reads none, nor a hidden one."""
    reads, other = "aisec_lab.models.words", "aisec_lab.models.fit"
    seen = [Sources(package).code(reads)]
    for name in ("words.txt", "below/more.txt"):
        plant(package, {f"aisec_lab/models/{name}": "three"})
        seen.append(Sources(package).code(reads))
    assert len(set(seen)) == 3
    plant(package, {"aisec_lab/models/.hidden": "x", "aisec_lab/models/__pycache__/words.pyc": "x"})
    assert Sources(package).code(reads) == seen[-1]
    assert Sources(package).data(other) == {}


@pytest.mark.parametrize(
    "code",
    [
        "from jinja2 import Environment, PackageLoader",
        "from importlib.resources import files",
        "from importlib import resources",
        "import importlib.resources as r",
        "import pkgutil",
        "x = __file__",
        "import aisec_lab.models as m\nx = m.__file__",
        "x = __spec__.origin",
    ],
)
def test_each_way_to_read_a_file_beside_a_module_is_seen(package: Path, code: str) -> None:
    plant(package, {"aisec_lab/models/fit.py": code})
    assert "words.txt" in Sources(package).data("aisec_lab.models.fit")


def test_what_an_earlier_object_parsed_is_not_parsed_again(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a file that has changed since is."""
    first = Sources(package)
    codes = {module: first.code(module) for module in first.modules}
    edit(package, "aisec_lab/files.py", "json", "csv")
    parsed: list[bytes] = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda text: parsed.append(text) or parse(text))
    second = Sources(package, first.parsed)
    changed = {module for module in second.modules if second.code(module) != codes[module]}
    assert changed == {"aisec_lab.files"}
    assert len(parsed) == 1


def test_no_code_of_the_package_reads_docstrings_or_source() -> None:
    """That is why they do not count: no result can depend on them."""
    reading = {"__doc__", "getsource", "getdoc", "getsourcelines", "getsourcefile", "linecache"}
    for file in sorted((ROOT / "aisec_lab").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = {getattr(node, field, None) for field in ("attr", "id", "name", "module")}
            assert not names & reading, f"{file} line {node.lineno}"  # type: ignore[attr-defined]


def test_the_package_itself_can_be_read_and_each_export_resolved() -> None:
    """Every module of ours, and every name of every room."""
    sources = Sources(ROOT)
    reach = Reach(sources)
    for module in sources.modules:
        names = [target(f"{module}.{name}") for name in sources.exports(module)]
        assert module in reach.of([target(module), *names], sources.place(module)).modules


NAMES = "ABCD"


class Graph(NamedTuple):
    """A package, and code that uses it."""

    files: dict[str, str]
    code: str


def forms(room: str | None, other: str, module: str) -> list[str]:
    """Each way in which a module of a room, or a notebook, may use the class of a module in a room."""
    name = module.upper()
    absolute = [
        f"import aisec_lab.{other}.{module}\naisec_lab.{other}.{module}.{name}",
        f"import aisec_lab.{other}.{module} as x\nx.{name}",
        f"import aisec_lab.{other}.{module}\naisec_lab.{other}.{name}",
        f"import aisec_lab.{other}\naisec_lab.{other}.{name}",
        f"from aisec_lab.{other} import {name}\n{name}",
        f"from aisec_lab.{other} import {module}, {name} as y\nx = {module}.{name}",
        f"from aisec_lab.{other}.{module} import {name} as y\ny()",
        f"from aisec_lab.{other}.{module} import *\n{name}",
        f"from aisec_lab import {other} as z\nw = z.{name}",
        f"from aisec_lab import {other} as z\nw = [z][0].{name}",
        f"import aisec_lab.{other} as z\ngetattr(z, '{name}')",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from aisec_lab.red.lone import Lone",
    ]
    if room is None:
        return absolute
    near = "." if room == other else f"..{other}."
    return [
        *absolute,
        f"from {near.removesuffix('.') or '.'} import {name} as y",
        f"from {near}{module} import {name} as y",
        f"from .. import {other} as z\nz.{name}",
    ]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Two rooms and six modules, each of which uses some before it in any form, when imported or when called."""
    places = [(draw(st.sampled_from(["red", "blue"])), f"m{place}") for place in range(6)]
    files = {"aisec_lab/__init__.py": "", "aisec_lab/red/lone.py": "class Lone: ...\n"}

    def uses(room: str | None, earlier: list[tuple[str, str]], most: int) -> list[str]:
        chosen = draw(st.lists(st.sampled_from(earlier), max_size=most)) if earlier else []
        return [draw(st.sampled_from(forms(room, *place))) for place in chosen]

    for place, (room, module) in enumerate(places):
        at_once, when_called = uses(room, places[:place], 2), uses(room, places[:place], 1)
        body = "\n".join(when_called if "import *" not in str(when_called) else []) or "pass"
        method = indent(f"def __init__(self):\n{indent(body, '    ')}", "    ")
        files[f"aisec_lab/{room}/{module}.py"] = "\n".join([*at_once, f"class {module.upper()}:", method, ""])
    for room in ("red", "blue"):
        names = [f"from .{module} import {module.upper()}" for other, module in places if other == room]
        files |= {f"aisec_lab/{room}/__init__.py": LAZY, f"aisec_lab/{room}/__init__.pyi": "\n".join(names)}
    called = draw(st.lists(st.sampled_from(places), max_size=2))
    calls = [f"from aisec_lab.{room}.{module} import {module.upper()} as made\nmade()" for room, module in called]
    return Graph(files, "\n".join([*uses(None, places, 3), *calls]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graphs())
def test_whatever_python_imports_is_in_the_closure(graph: Graph) -> None:
    """Over random packages and forms of import; a module that only type checkers import is not in it."""
    with TemporaryDirectory() as folder:
        root = plant(Path(folder), graph.files)
        found = reached(root, graph.code)
        assert imported(root, graph.code) <= found
    assert "aisec_lab.red.lone" not in found
