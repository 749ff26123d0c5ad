"""Which parameters a notebook may read, found in its source without running it."""

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aisec_lab.workbench.notebook_code import is_code, python_of

CALLED = "configure"
MEND = 'write `cfg = configure(overrides, reads=["data", f"attacks.{attack}"])`'


def reads_of(notebook: Path, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that a notebook hands to `configure` as `reads`, sorted.

    Args:
        notebook: the source, with one cell tagged `parameters`.
        parameters: what its stage passes; the notebook's own defaults stand for the rest.

    Returns:
        Such as `("attacks.pgd", "data")`; none where it does not call `configure` (one of the other kernel).

    Raises:
        ValueError: names that can't be told from the source, or more than one call.
    """
    known: dict[str, Any] = {}
    found: list[tuple[str, ...]] = []
    for cell in json.loads(notebook.read_text())["cells"]:
        text, tagged = "".join(cell["source"]), "parameters" in cell["metadata"].get("tags", ())
        if not is_code(cell) or not (tagged or CALLED in text):
            continue
        tree = ast.parse(python_of(text, str(notebook)))
        if tagged:
            known |= _assigned(tree) | dict(parameters)
        found += [_names(call, known, notebook) for call in _calls(tree)]
    if len(found) > 1:
        raise ValueError(f"{notebook} calls `configure` {len(found)} times: once, with all that it reads")
    return found[0] if found else ()


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls of `configure`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == CALLED:
            yield node


def _assigned(tree: ast.Module) -> dict[str, Any]:
    """The values of the simple assignments of a cell."""
    values = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            (target,) = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(target, ast.Name):
                values[target.id] = ast.literal_eval(node.value)
    return values


def _names(call: ast.Call, known: Mapping[str, Any], notebook: Path) -> tuple[str, ...]:
    given = next((word.value for word in call.keywords if word.arg == "reads"), None)
    if not isinstance(given, ast.List):
        raise ValueError(f"{notebook}: `configure` lacks a list of what the notebook reads: {MEND}")
    return tuple(sorted(_text(item, known, notebook) for item in given.elts))


def _text(node: ast.expr, known: Mapping[str, Any], notebook: Path) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, known, notebook) for part in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name) and node.value.id in known:
        return str(known[node.value.id])
    raise ValueError(f"{notebook}: `reads` holds {ast.unparse(node)}, which is no name or parameter of it: {MEND}")
