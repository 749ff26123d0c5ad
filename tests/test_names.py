"""Each public name stands for one thing in all rooms, and says what that is."""

import ast
import inspect
from collections import defaultdict
from importlib import import_module
from types import FunctionType

import pytest

from tests.docstrings import chains, lacking, parts_lacking
from tests.test_architecture import MODULES, PUBLIC, Public


def test_a_public_name_is_exported_by_one_room() -> None:
    """So it can be searched for, and imported from anywhere without a second thought."""
    rooms = defaultdict(set)
    for public in PUBLIC:
        rooms[public.name].add(public.room)
    assert not {name: sorted(where) for name, where in rooms.items() if len(where) > 1}


def test_a_public_class_is_defined_once() -> None:
    """No other module of the package has a class of the same name, public or not."""
    definitions = defaultdict(list)
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                definitions[node.name].append(module)
    public = {each.name for each in PUBLIC}
    assert not {name: where for name, where in definitions.items() if name in public and len(where) > 1}


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: f"{public.room}.{public.name}")
def test_what_can_be_called_has_a_docstring_of_its_own(public: Public) -> None:
    """Of a class, not inherited, and not the signature that a dataclass writes where there is none."""
    exported = getattr(import_module(public.room), public.name)
    if not isinstance(exported, type | FunctionType):
        return  # a constant, or an alias of a type
    written = exported.__doc__ if inspect.isclass(exported) else inspect.getdoc(exported)
    assert written, f"{public.module}.{public.name} has no docstring"
    assert not written.startswith(f"{public.name}("), f"{public.module}.{public.name} has no docstring"


def test_what_can_be_called_says_what_it_takes_and_gives() -> None:
    """In its docstring, or on the page that the docstring names as its contract."""
    needed = {"docstring", "Args", "Returns"}
    found = {f"{each.public.module}.{each.public.name}": needed.intersection(each.parts) for each in lacking()}
    assert len(found) > 400  # all rooms were read
    assert not {name: sorted(parts) for name, parts in found.items() if parts}


def test_no_docstring_leaves_its_arguments_to_a_chain_of_others() -> None:
    """None says "as for" another function, where a reader would have to look next."""
    assert not list(chains())


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("def f(*names: str) -> None: 'Says nothing of the names.'", {"Args"}),
        ("def f() -> int: 'Says nothing of the number.'", {"Returns"}),
        ("def f(x: int) -> int: 'Contract: docs/defenses.md.'", set()),
        ("def f(x: int) -> int: 'Contract: docs/no-such-page.md.'", {"Args", "Returns"}),
        ("def f(x: int) -> int: 'An example stands in docs/defenses.md.'", {"Args", "Returns"}),
        ("class C:\n 'Has no field.'\n sign: ClassVar[int] = 1", set()),
        ("class C:\n 'Has a field. Contract: docs/defenses.md.'\n sign: int = 1", {"Args"}),
        ("class C:\n '''Args:\n  sign: a field.'''\n sign: int\n def __call__(self, x): ...", {"Args"}),
        ("class C:\n 'Is called.'\n def __call__(self, x):\n  '''Args:\n   x: a number.'''", set()),
        ("class C:\n '''Is called as\n for D.'''\n def __call__(self) -> None: ...", {"chain"}),
    ],
)
def test_what_a_docstring_lacks_is_seen(source: str, parts: set[str]) -> None:
    """Of small definitions; none of them needs a paper."""
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    assert set(parts_lacking(node)) - {"source"} == parts
