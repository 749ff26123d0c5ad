"""What one file says of the package: the names that it imports and uses, those it defines, the hash of its code."""

import ast
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

PACKAGE = "aisec_lab"
LOADER = "lazy_loader"
DATA_NAMES = {"__file__", "__path__", "__spec__", "__loader__"}
DATA_MODULES = {"importlib", "importlib.resources", "pkgutil", "jinja2"}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Use(NamedTuple):
    """A name of the package that a file uses.

    Args:
        name: in full, such as `aisec_lab.attacks.PGD`; it need not be a module.
        imported: by an import statement, so that it must be there; otherwise it is read as an attribute.
        whole: its value is passed on or star-imported: if it is a package, any of its names may be used.
    """

    name: str
    imported: bool
    whole: bool


class Facts(NamedTuple):
    """What is known of a file once it has been parsed.

    Args:
        code: sha256 of its syntax tree without docstrings, comments, positions and lazy exports.
        uses: the names of the package that it uses, anywhere in the file except under `if TYPE_CHECKING:`.
        defines: names at its top level.
        bound: from each name that an import gives to something of the package to its full names.
        stars: modules of the package of which everything is imported.
        lazy: it exports what its stub (`.pyi`) imports.
        reads_data: it may read files that lie beside it.
    """

    code: str
    uses: tuple[Use, ...]
    defines: frozenset[str]
    bound: dict[str, tuple[str, ...]]
    stars: tuple[str, ...]
    lazy: bool
    reads_data: bool


def facts_of(tree: ast.Module, package: str | None) -> Facts:
    """Read a syntax tree; lazy exports and docstrings are taken out of it.

    Args:
        tree: of a module, or of the cells of a notebook.
        package: the one that its relative imports start from; `None` for a notebook, which has none.

    Raises:
        ValueError: a relative import that leads out of the package.
    """
    lazy = any(_attaches(statement) for statement in tree.body)
    defines = frozenset(_defined(tree))
    if lazy:
        tree.body = [statement for statement in tree.body if not _only_exports(statement)]
    uses: set[Use] = set()
    bound: dict[str, set[str]] = {}
    stars: set[str] = set()
    for statement in _imports(tree):
        for imported in _imported(statement, package):
            uses.add(Use(imported.name, imported=True, whole=imported.alias == "*"))
            if imported.alias == "*":
                stars.add(imported.name)
            else:
                bound.setdefault(imported.alias, set()).add(imported.value)
    reads_data = False
    for node in _nodes(tree):
        base, *rest = _chain(node)
        for full in bound.get(base, ()):
            uses.add(Use(".".join([full, *rest]), imported=False, whole=True))
        reads_data = reads_data or not DATA_NAMES.isdisjoint((base, *rest)) or _imports_data(node)
        if isinstance(node, ast.Module | Definition) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return Facts(
        code=hashlib.sha256(ast.dump(tree).encode()).hexdigest(),
        uses=tuple(sorted(uses)),
        defines=defines,
        bound={name: tuple(sorted(fulls)) for name, fulls in sorted(bound.items())},
        stars=tuple(sorted(stars)),
        lazy=lazy,
        reads_data=reads_data,
    )


def exports_of(stub: ast.Module) -> dict[str, list[str]]:
    """From each name that a stub exports to the modules, relative to its package, that hold it; "" for a submodule.

    As in `lazy_loader`, which carries the stub out, only `from .module import name` counts, wherever it stands.
    """
    exports: dict[str, set[str]] = {}
    for node in ast.walk(stub):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            for alias in node.names:
                exports.setdefault(alias.name, set()).add(node.module or "")
    return {name: sorted(modules) for name, modules in exports.items()}


class _Imported(NamedTuple):
    """One name of an import statement: what is imported, the name it gets in the file, and the full name of that."""

    name: str
    alias: str
    value: str


def _imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements that Python may run: not those that only type checkers see."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and _chain(node.test)[-1] == "TYPE_CHECKING":
            todo.extend(node.orelse)
        elif not isinstance(node, ast.expr):
            todo.extend(ast.iter_child_nodes(node))


def _imported(node: ast.Import | ast.ImportFrom, package: str | None) -> Iterator[_Imported]:
    """What a statement imports of the package."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if _ours(alias.name):
                value = alias.name if alias.asname else PACKAGE  # `import a.b` gives the file the name a
                yield _Imported(alias.name, alias.asname or PACKAGE, value)
        return
    module = _absolute(node, package)
    if _ours(module):
        for alias in node.names:
            name = module if alias.name == "*" else f"{module}.{alias.name}"
            yield _Imported(name, alias.asname or alias.name, name)


def _absolute(node: ast.ImportFrom, package: str | None) -> str:
    """The full name of the module that is imported from."""
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    if node.level > len(parts):
        raise ValueError(f"line {node.lineno}: a relative import that leads out of {PACKAGE}; import by the full name")
    return ".".join(parts[: len(parts) - node.level + 1] + ([node.module] if node.module else []))


def _ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE


def _nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes of a tree; of a chain `a.b.c` the whole alone, not `a.b` and `a`, whose values are not used as such."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        while isinstance(node, ast.Attribute):
            node = node.value
            if not isinstance(node, ast.Attribute | ast.Name):
                todo.append(node)
        if not isinstance(node, ast.Name):
            todo.extend(ast.iter_child_nodes(node))


def _chain(node: ast.AST) -> list[str]:
    """The names of `a.b.c`; where it does not begin with a name, as in `f().b.c`, "" stands in its place."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *reversed(names)]


def _defined(tree: ast.Module) -> Iterator[str]:
    """Names that have a value at the top level once the module has been run."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, Definition):
            yield node.name
            todo.extend(inner for inner in ast.walk(node) if isinstance(inner, ast.Global))
        elif isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.split(".")[0]
        elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.ExceptHandler) and node.name:
            yield node.name
            todo.extend(ast.iter_child_nodes(node))
        else:
            todo.extend(ast.iter_child_nodes(node))


def _imports_data(node: ast.AST) -> bool:
    """Whether a statement imports what reads the files beside a module."""
    if isinstance(node, ast.Import):
        return any(alias.name in DATA_MODULES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return node.module in DATA_MODULES or any(f"{node.module}.{alias.name}" in DATA_MODULES for alias in node.names)
    return False


def _attaches(statement: ast.stmt) -> bool:
    """Whether a statement is `… = lazy_loader.attach_stub(…)`."""
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Call)
        and _chain(statement.value.func)[-1] == "attach_stub"
    )


def _only_exports(statement: ast.stmt) -> bool:
    """Whether a statement of a lazy `__init__` does nothing but export."""
    if isinstance(statement, ast.Import):
        return all(alias.name == LOADER for alias in statement.names)
    if isinstance(statement, ast.ImportFrom):
        return statement.module == LOADER
    if isinstance(statement, ast.Assign) and [_chain(target) for target in statement.targets] == [["__all__"]]:
        return True
    return _attaches(statement)
