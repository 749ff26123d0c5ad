"""What a notebook looks up by a name from its settings, found in its source without running it."""

import ast
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from aisec_lab.workbench.notebook_code import is_code, python_of
from aisec_lab.workbench.reads import CALLED

COPIES = ("instantiate", "list", "tuple", "sorted", "dict")  # calls that keep names and keys


class Value(NamedTuple):
    """What an expression stands for.

    Args:
        kind: `node`, a part of the configuration; `item`, one of the values in it; `key`, one of its keys; `keyed`, a
            dictionary with these keys or values as keys; `text`, a parameter of the notebook; `word`, a word of one.
        place: where in the configuration, or the name of the parameter.
    """

    kind: str
    place: str


def lookups_of(notebook: Path) -> set[tuple[str, str]]:
    """Which names a notebook looks up in which mapping.

    Returns:
        Pairs of places in the configuration: such as `invert.promises`, whose values are names, and `promises`, where
        `cfg.promises[name]` looks for them.
    """
    return _read(notebook, {}).lookups


def paths_of(notebook: Path, parameters: Mapping[str, str]) -> set[tuple[str, str]]:
    """The paths that a notebook makes of a folder and the words of another parameter.

    Args:
        notebook: its source.
        parameters: what its stage passes.

    Returns:
        Pairs of a parameter and a path that it names: for `f"{outputs}/{name}/x.npz"`, in a loop over
        `names.split(",")`, the pairs of `names` and the folder of each name.
    """
    return _read(notebook, parameters).paths


def _read(notebook: Path, parameters: Mapping[str, str]) -> "_Reader":
    reader = _Reader(parameters)
    for cell in json.loads(notebook.read_text())["cells"]:
        if is_code(cell):
            reader.visit(ast.parse(python_of("".join(cell["source"]), str(notebook))))
    return reader


class _Reader(ast.NodeVisitor):
    """Follows simple names through assignments, loops and comprehensions; it knows nothing of the others."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.parameters = parameters
        self.known = {name: Value("text", name) for name in parameters}
        self.lookups: set[tuple[str, str]] = set()
        self.paths: set[tuple[str, str]] = set()

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._bind(target, node.value)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self._iterate(node.target, node.iter)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node.generators, (node.key, node.value))

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self._comprehension(node.generators, (node.elt,))

    visit_SetComp = visit_GeneratorExp = visit_ListComp  # noqa: N815

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        mapping, name = self._value(node.value), self._value(node.slice)
        if mapping and mapping.kind in ("node", "keyed") and name and name.kind in ("node", "item"):
            self.lookups.add((name.place, mapping.place))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self.generic_visit(node)
        begin = ""
        for part in node.values:
            value = self._value(part.value) if isinstance(part, ast.FormattedValue) else None
            if isinstance(part, ast.Constant):
                begin += str(part.value)
            elif value and value.kind == "text":
                begin += self.parameters[value.place]
            elif value and value.kind == "word":
                words = self.parameters[value.place].split(",")
                self.paths |= {(value.place, f"{begin}{word}") for word in words}
                return
            else:
                return

    def _comprehension(self, generators: Iterable[ast.comprehension], parts: Iterable[ast.expr]) -> None:
        outside = dict(self.known)
        for each in generators:
            self.visit(each.iter)
            self._iterate(each.target, each.iter)
            for condition in each.ifs:
                self.visit(condition)
        for part in parts:
            self.visit(part)
        self.known = outside

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for one, its in zip(target.elts, value.elts, strict=True):
                self._bind(one, its)
        else:
            self._know(target, self._value(value))

    def _know(self, target: ast.expr, value: Value | None) -> None:
        """Note what a name stands for from here on; nothing for the names of a tuple."""
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and node.id not in self.parameters:
                self.known.pop(node.id, None)
        if isinstance(target, ast.Name) and value:
            self.known[target.id] = value

    def _iterate(self, target: ast.expr, source: ast.expr) -> None:
        self._know(target, None)
        call = source.func if isinstance(source, ast.Call) else None
        if isinstance(call, ast.Attribute) and (whole := self._value(call.value)):
            if call.attr == "items" and isinstance(target, ast.Tuple):
                self._know(target.elts[0], Value("key", whole.place))
            elif call.attr == "split" and whole.kind == "text":
                self._know(target, Value("word", whole.place))
        elif whole := self._value(source):
            self._know(target, Value("item", whole.place))

    def _value(self, node: ast.expr) -> Value | None:
        match node:
            case ast.Name(id=name):
                return self.known.get(name)
            case ast.Attribute(value=whole, attr=key) | ast.Subscript(value=whole, slice=ast.Constant(value=str(key))):
                value = self._value(whole)
                return Value("node", f"{value.place}.{key}".lstrip(".")) if value and value.kind == "node" else None
            case ast.Call(func=ast.Name(id=name)) if name == CALLED:
                return Value("node", "")
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in COPIES:
                return self._value(first)
            case ast.DictComp(key=ast.Name(id=name), generators=[one]):
                outside = dict(self.known)
                self._iterate(one.target, one.iter)
                value, self.known = self.known.get(name), outside
                return Value("keyed", value.place) if value and value.kind in ("item", "key") else None
        return None
