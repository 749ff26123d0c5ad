"""How many public callables say what they take, what they give, and where they come from.

`python -m tests.docstrings` prints the counts of each room, and with `-v` the names of those that lack something.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.test_architecture import MODULES, PUBLIC, Public

LIBRARY = ("attacks", "defenses", "privacy", "evaluation")
CHAIN = re.compile(r"\bas for\b")
SOURCE = re.compile(r"et al\.|arXiv|\b(?:19|20)\d\d\b")
PAGE = re.compile(r"docs/[\w-]+\.md")  # a page that documents the call of many classes


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

    A class needs `Args` if it has fields or a constructor with arguments, and `Returns` if it is called; both may stand
    in the docstring of the class, of `__init__` or of `__call__`. A page in docs/ stands for both of a call.
    """
    methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    parts = [node, *(methods[name] for name in ("__init__", "__call__") if name in methods)]
    text = "\n".join(ast.get_docstring(part) or "" for part in parts)
    if not ast.get_docstring(node):
        yield "docstring"
    if _takes(node, methods) and not re.search(r"^\s*Args", text, re.MULTILINE) and not PAGE.search(text):
        yield "Args"
    if _gives(node, methods) and not re.search(r"^\s*(?:Returns|Yields)", text, re.MULTILINE) and not PAGE.search(text):
        yield "Returns"
    if isinstance(node, ast.ClassDef) and not SOURCE.search(text):
        yield "source"
    if CHAIN.search(text):
        yield "chain"


def _takes(node: ast.ClassDef | ast.FunctionDef, methods: dict[str, ast.FunctionDef]) -> bool:
    if isinstance(node, ast.FunctionDef):
        return bool(_arguments(node))
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    called = [methods[name] for name in ("__init__", "__call__") if name in methods]
    return bool(fields) or any(len(_arguments(method)) > 1 for method in called)


def _gives(node: ast.ClassDef | ast.FunctionDef, methods: dict[str, ast.FunctionDef]) -> bool:
    call = node if isinstance(node, ast.FunctionDef) else methods.get("__call__")
    return call is not None and not (call.returns is None or ast.unparse(call.returns) in ("None", "NoReturn"))


def _arguments(node: ast.FunctionDef) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


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
    phrases = {name: len(CHAIN.findall(Path(file).read_text())) for name, file in MODULES.items()}
    print(f"as for: {sum(phrases.values())} in {sum(map(bool, phrases.values()))} files")
    if "-v" in sys.argv:
        for each in lacking():
            if each.parts:
                print(f"{each.public.module}.{each.public.name}: {', '.join(each.parts)}")


if __name__ == "__main__":
    main()
