"""How many public callables say what they take, what they give, and where they come from.

`python -m tests.docstrings` prints the counts of each room, and with `-v` the names of those that lack something.
"""

import ast
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.clone import ROOT
from tests.test_architecture import MODULES, PUBLIC, Public

LIBRARY = ("attacks", "defenses", "privacy", "evaluation")
CHAIN = re.compile(r"\bas\s+for\b")
SOURCE = re.compile(r"et al\.|arXiv|\b(?:19|20)\d\d\b")
CONTRACT = re.compile(r"\b[Cc]ontract:\s+(docs/[\w-]+\.md)")  # the page that documents the call of many classes


class Lacking(NamedTuple):
    """A public callable, and what its docstring lacks."""

    public: Public
    parts: tuple[str, ...]

    @property
    def room(self) -> str:
        """The room in the top of the package."""
        return self.public.room.split(".")[1]


def lacking() -> Iterator[Lacking]:
    """Every public class and function, in the order of the stubs."""
    trees = {module: ast.parse(MODULES[module].read_text()) for module in {public.module for public in PUBLIC}}
    for public in PUBLIC:
        for node in trees[public.module].body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == public.name:
                yield Lacking(public, tuple(parts_lacking(node)))


def parts_lacking(node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    """Which of `docstring`, `Args`, `Returns`, `source` a definition lacks; `chain` if it says "as for …".

    Fields and arguments of a constructor stand in the docstring of the class or of `__init__`. Those of a call stand in
    the docstring of `__call__`, under "Args of the call" in that of the class, or on the page that one of them names as
    its contract; so does what the call returns.
    """
    methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    own, init, call = (ast.get_docstring(part) or "" if part else "" for part in _parts(node, methods))
    text = "\n".join((own, init, call))
    if not own:
        yield "docstring"
    if (_has_fields(node, methods) and not _section("Args", own + "\n" + init)) or (
        _takes(_call(node, methods)) and not _documents_call(node, own, call)
    ):
        yield "Args"
    if _gives(_call(node, methods)) and not _section("(?:Returns|Yields)", text) and not _contract(text):
        yield "Returns"
    if isinstance(node, ast.ClassDef) and not SOURCE.search(text):
        yield "source"
    if CHAIN.search(text):
        yield "chain"


def chains() -> Iterator[str]:
    """Every docstring of the package that says "as for …", public or not: its module and the name that it is of."""
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if CHAIN.search(ast.get_docstring(node) or ""):
                yield module if isinstance(node, ast.Module) else f"{module}.{node.name}"


Methods = dict[str, ast.FunctionDef]


def _parts(node: ast.ClassDef | ast.FunctionDef, methods: Methods) -> tuple[Any, ...]:
    return node, methods.get("__init__"), methods.get("__call__")


def _call(node: ast.ClassDef | ast.FunctionDef, methods: Methods) -> ast.FunctionDef | None:
    """What is called: the function itself, or the `__call__` of a class, if it defines one."""
    return node if isinstance(node, ast.FunctionDef) else methods.get("__call__")


def _section(name: str, text: str) -> bool:
    return bool(re.search(rf"^\s*{name}:", text, re.MULTILINE))


def _contract(text: str) -> bool:
    """Whether a docstring names the page that documents the call, and the page exists."""
    return any((ROOT / page).exists() for page in CONTRACT.findall(text))


def _documents_call(node: ast.ClassDef | ast.FunctionDef, own: str, call: str) -> bool:
    if isinstance(node, ast.FunctionDef):
        return _section("Args", own) or _contract(own)
    return _section("Args", call) or _section("Args of the call", own) or _contract(own + "\n" + call)


def _has_fields(node: ast.ClassDef | ast.FunctionDef, methods: Methods) -> bool:
    """Whether a class is made with arguments: of its constructor, or fields, which a ClassVar is not."""
    fields = (each for each in node.body if isinstance(each, ast.AnnAssign))
    return isinstance(node, ast.ClassDef) and (
        _takes(methods.get("__init__")) or any("ClassVar" not in ast.unparse(each.annotation) for each in fields)
    )


def _takes(node: ast.FunctionDef | None) -> bool:
    """Whether a function has arguments, beside `self`."""
    if node is None:
        return False
    given = node.args
    several = (each for each in (given.vararg, given.kwarg) if each)
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs, *several)]
    return any(name != "self" for name in names)


def _gives(node: ast.FunctionDef | None) -> bool:
    if node is None:
        return False
    return node.returns is not None and ast.unparse(node.returns) not in ("None", "NoReturn")


def counts() -> dict[str, dict[str, int]]:
    """For each room of the library the number of its public callables, and of those that lack each part."""
    found = list(lacking())
    parts = ("docstring", "Args", "Returns", "source", "chain")
    return {
        room: {"public": len(mine)} | {part: sum(part in each.parts for each in mine) for part in parts}
        for room in sorted({each.room for each in found}, key=lambda room: (room not in LIBRARY, room))
        if (mine := [each for each in found if each.room == room])
    }


def main() -> None:
    """Print a line for each room; with `-v` also one for each callable that lacks something."""
    for room, numbers in counts().items():
        print(f"{room:12}" + "".join(f"{name} {number:<6}" for name, number in numbers.items()))
    print(f"as for: {len(list(chains()))}")
    if "-v" in sys.argv:
        for each in lacking():
            if each.parts:
                print(f"{each.public.module}.{each.public.name}: {', '.join(each.parts)}")


if __name__ == "__main__":
    main()
