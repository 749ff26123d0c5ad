"""Each public name stands for one thing in all rooms, and says what that is."""

import ast
import inspect
from collections import defaultdict
from importlib import import_module
from types import FunctionType

import pytest

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
