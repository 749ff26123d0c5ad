"""The house stands as DESIGN.md draws it: imports go down, never up, never in a circle, and rooms export lazily."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import pytest

from tests.clone import ROOT

FLOORS = ["core", "data", "models", "attacks", "defenses", "privacy", "evaluation", "trust", "guard", "workbench"]
LIBRARIES = {"attacks", "defenses", "privacy"}
PIPELINE = {"hydra", "omegaconf", "dvc", "papermill", "nbconvert", "nbformat"}
WEB = {"fastapi", "starlette", "uvicorn", "valkey", "prometheus_client"}
FILES = sorted(file for file in (ROOT / "aisec_lab").rglob("*.py*") if file.suffix in {".py", ".pyi"})
LAZY = "import lazy_loader\n__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)"


class Public(NamedTuple):
    """A name that a room exports, and the module that its stub takes it from."""

    room: str
    name: str
    module: str


def dotted(file: Path) -> str:
    """The import name of a file of the package; a room's for its `__init__`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def of_stub(stub: Path) -> list[Public]:
    """What a room's stub imports, in its order."""
    room, found = dotted(stub), []
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1, f"{stub}: `from {'.' * node.level}{node.module}`: a room exports its own modules"
            assert node.module, f"{stub}: a room exports names, not modules"
            for alias in node.names:
                assert alias.asname in (None, alias.name), f"{stub}: {alias.name} is renamed, which is lost at run time"
                found.append(Public(room, alias.name, f"{room}.{node.module}"))
    return found


STUBS = [file for file in FILES if file.suffix == ".pyi"]
PUBLIC = [public for stub in STUBS for public in of_stub(stub)]
HOME = {(public.room, public.name): public.module for public in PUBLIC}
MODULES = {dotted(file): file for file in FILES if file.suffix == ".py"}


def imports(file: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == (file.suffix == ".pyi"), f"{file}: a relative import, or a stub's that is not"
            names.add(f"{dotted(file)}.{node.module}" if node.level else node.module or "")
    return names


def imported(file: Path) -> Iterator[str]:
    """The modules of the package that a file imports at run time, each exported name at the module that holds it.

    Imports inside functions count; those for type checkers alone do not.
    """
    tree = ast.parse(file.read_text())
    guards = (node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    unseen = {below for guard in guards for statement in guard.body for below in ast.walk(statement)}
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield HOME.get((node.module, alias.name), below if below in MODULES else node.module)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_from_its_own_floor_and_below(file: Path) -> None:
    """Libraries know nothing of the pipeline; only the workbench does."""
    parts = file.relative_to(ROOT / "aisec_lab").parts
    below_all, above_all = -1, len(FLOORS)
    floor = FLOORS.index(parts[0]) if len(parts) > 1 else above_all if parts[0] == "__main__.py" else below_all
    for name in imports(file):
        package, *below = name.split(".")
        if package == "aisec_lab" and below and below[0] in FLOORS:
            assert FLOORS.index(below[0]) <= floor, f"{file} imports {name}, a floor above it"
        if parts[0] != "workbench":
            assert package not in PIPELINE | WEB, (
                f"{file} imports {name}: only the workbench knows the pipeline and the web"
            )


def test_no_module_imports_itself_in_a_circle() -> None:
    """Not through a function either: what two modules need stands in a third below both.

    With lazy rooms the name that is asked for first decides the order of the imports: no order may fail.
    """
    graph = {name: set(imported(file)) for name, file in MODULES.items()}
    through_a_room = graph["aisec_lab.attacks.evasion.gradient.pgd"]
    assert "aisec_lab.attacks.evasion.geometry.balls" in through_a_room
    in_a_function = graph["aisec_lab.workbench.command"]
    assert "aisec_lab.workbench.composition" in in_a_function
    for_types_only = graph["aisec_lab.workbench.repro_command"]
    assert "aisec_lab.workbench.repro.executor" not in for_types_only
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_nothing_imports_what_the_warm_process_loads_by_its_path() -> None:
    """It runs the command `aisec`, which imports the executors: an import of it would be a circle that Python hides."""
    by_path = {"aisec_lab.workbench.repro.forks", "aisec_lab.workbench.repro.fork_server"}
    assert not [name for name, file in MODULES.items() if by_path & set(imported(file))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_is_one_idea(file: Path) -> None:
    """Past 300 lines it has become two things; an __init__ defines nothing: it hands on lazily what its stub names."""
    text = file.read_text()
    assert text.count("\n") <= 300
    if file.name == "__init__.py":
        docstring, *code = ast.parse(text).body
        assert isinstance(docstring, ast.Expr)
        assert isinstance(docstring.value, ast.Constant)
        assert "\n".join(map(ast.unparse, code)) == (LAZY if file.with_suffix(".pyi").exists() else "")


@pytest.mark.parametrize("stub", STUBS, ids=dotted)
def test_a_stub_says_what_its_room_exports(stub: Path) -> None:
    """`__all__` has what is imported, once each; nothing else stands there, and tab completion finds all of it."""
    *imported, last = ast.parse(stub.read_text()).body
    names = [public.name for public in of_stub(stub)]
    assert all(isinstance(node, ast.ImportFrom) for node in imported)
    assert isinstance(last, ast.Assign)
    assert ast.unparse(last.targets[0]) == "__all__"
    assert sorted(ast.literal_eval(last.value)) == sorted(set(names)) == sorted(names)
    room = import_module(dotted(stub))
    assert dir(room) == sorted(names)
    assert room.__all__ == sorted(names)


@pytest.mark.parametrize("stub", STUBS, ids=dotted)
def test_no_exported_name_is_a_module_of_its_room(stub: Path) -> None:
    """Importing a submodule binds it on the package, where it would hide the name for good."""
    room = dotted(stub)
    below = {name.removeprefix(f"{room}.") for name in MODULES if name.startswith(f"{room}.")}
    assert not below & {public.name for public in of_stub(stub)}


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: f"{public.room}.{public.name}")
def test_a_public_name_is_what_its_module_holds(public: Public) -> None:
    """The same object from the room, from the module, and from the room again; a class or function is defined there."""
    exported = getattr(import_module(public.room), public.name)
    assert exported is getattr(import_module(public.module), public.name)
    assert exported is getattr(import_module(public.room), public.name)
    if isinstance(exported, type | FunctionType):
        assert exported.__module__ == public.module


ROOMS = ", ".join(dotted(stub) for stub in STUBS)
HEAVY = {"dvc", "hydra", "matplotlib", "nbconvert", "onnx", "opendp", "pandas", "papermill", "scipy", "sklearn"}


@pytest.mark.parametrize(
    ("statement", "needed", "refused"),
    [
        (f"import {ROOMS}", {"lazy_loader"}, HEAVY | {"numpy", "omegaconf", "torch"}),
        ("from aisec_lab.attacks import PGD", {"torch"}, HEAVY | {"omegaconf"}),
        ("from aisec_lab.data import Dataset", {"torch"}, HEAVY | {"omegaconf"}),
        ("from aisec_lab.models import Fit", {"torch"}, HEAVY | {"omegaconf"}),
        ("from aisec_lab.workbench import configure", {"omegaconf"}, HEAVY | {"numpy", "torch"}),
        ("import aisec_lab.workbench.command", {"click"}, HEAVY | {"numpy", "torch"}),
    ],
    ids=["all rooms", "PGD", "Dataset", "Fit", "configure", "the command"],
)
def test_an_import_costs_what_is_used_of_it(statement: str, needed: set[str], refused: set[str]) -> None:
    """A fresh interpreter has loaded what is needed, and no more."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = set(json.loads(output))
    assert needed <= loaded
    assert not refused & loaded
