"""The package's source code, read and never run: its modules, what each says, and a hash of what each does."""

import ast
import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from aisec_lab.workbench.imports import PACKAGE, Facts, exports_of, facts_of

DIGITS = 12  # of a hash: 48 bits tell one state from the next; that two of 10,000 states meet has chance 2 in 10^7
SOURCE = (".py", ".pyi")
EMPTY = facts_of(ast.parse(""), None).code


class Sources:
    """The source code of the package under a project's root; this process may have imported another copy.

    A file is parsed when it is first asked for, and once. The methods raise ValueError for a file that is no Python.

    Args:
        root: the folder that holds `aisec_lab/`.
        parsed: the attribute `parsed` of an earlier object; files that have not changed since are not parsed again.
    """

    def __init__(self, root: Path, parsed: Mapping[str, Facts] | None = None) -> None:
        self.root = root
        self.parsed: dict[str, Facts] = {}  # by a hash of a file's name and bytes: those that this object was asked for
        self._formerly = parsed or {}
        self._facts: dict[str, Facts] = {}
        self._code: dict[str, str] = {}
        self._exports: dict[str, dict[str, list[str]]] = {}

    @cached_property
    def modules(self) -> dict[str, Path]:
        """The file of each module; of a package its `__init__.py`, or its folder where it has none."""
        found: dict[str, Path] = {}
        for file in sorted((self.root / PACKAGE).rglob("*.py")):
            parts = file.relative_to(self.root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if found.get(module, file.parent).name != "__init__.py" or parts[-1] == "__init__":  # as Python prefers
                found[module] = file
            for parent in parents(module):
                found.setdefault(parent, self.root.joinpath(*parent.split(".")))
        return dict(sorted(found.items()))

    def is_package(self, module: str) -> bool:
        """Whether a module may hold others."""
        return self.modules[module].name == "__init__.py" or self.modules[module].is_dir()

    def place(self, module: str) -> str:
        """The path of a module's file from the root."""
        return str(self.modules[module].relative_to(self.root))

    def facts(self, module: str) -> Facts:
        """What is known of a module's file."""
        if module not in self._facts:
            file, package = self.modules[module], module if self.is_package(module) else module.rpartition(".")[0]
            text = b"" if file.is_dir() else file.read_bytes()
            self._facts[module] = self.read(self.place(module), text, package)
        return self._facts[module]

    def read(self, place: str, text: bytes, package: str | None) -> Facts:
        """What code says of the package, whether a module's or that of a notebook.

        Args:
            place: the file that it is from.
            text: the code.
            package: the one that its relative imports start from; `None` for a notebook.

        Raises:
            ValueError: it is no Python, or has a relative import that leads out of the package.
        """
        key = hashlib.sha256(b"\0".join([place.encode(), text])).hexdigest()
        if key not in self.parsed:
            self.parsed[key] = self._formerly.get(key) or _read(place, text, package)
        return self.parsed[key]

    def exports(self, module: str) -> dict[str, list[str]]:
        """What a package exports lazily, from name to the modules that hold it; nothing for any other module.

        Raises:
            ValueError: a lazy package without a stub, or a stub that names a module that is not there.
        """
        if module not in self._exports:
            self._exports[module] = self._read_stub(module) if self.facts(module).lazy else {}
        return self._exports[module]

    def code(self, module: str) -> str:
        """A hash of what a module does: its syntax tree without docstrings, and the files beside it that it reads."""
        if module not in self._code:
            data = [(name, hashlib.sha256(file.read_bytes()).hexdigest()) for name, file in self.data(module).items()]
            code = self.facts(module).code
            self._code[module] = short_hash(f"{code} {sorted(data)}" if data else code)
        return self._code[module]

    def is_empty(self, module: str) -> bool:
        """Whether running a module does nothing: a package that holds a docstring and lazy exports at the most."""
        return self.facts(module).code == EMPTY

    def data(self, module: str) -> dict[str, Path]:
        """The files beside a module, and in the folders below, if it reads any; by their path from its folder."""
        if not self.facts(module).reads_data:
            return {}
        folder = self.modules[module].parent
        files = {file.relative_to(folder): file for file in sorted(folder.rglob("*")) if file.is_file()}
        return {
            str(name): file
            for name, file in files.items()
            if name.suffix not in SOURCE and not any(part.startswith((".", "__pycache__")) for part in name.parts)
        }

    def _read_stub(self, package: str) -> dict[str, list[str]]:
        stub = Path(self.place(package)).with_suffix(".pyi")
        if not (self.root / stub).exists():
            raise ValueError(f"{self.place(package)} exports what {stub} imports, and there is none: write it")
        exports = {
            name: [f"{package}.{module or name}" for module in modules]
            for name, modules in exports_of(parse(str(stub), (self.root / stub).read_bytes())).items()
        }
        for name, modules in exports.items():
            for module in modules:
                if module not in self.modules:
                    raise ValueError(f"{stub} exports {name} from {module}, which is not there: name its module")
        return exports


def _read(place: str, text: bytes, package: str | None) -> Facts:
    tree = parse(place, text)
    try:
        return facts_of(tree, package)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def parse(place: str, text: bytes) -> ast.Module:
    """The syntax tree of a file; a ValueError that names it where it is no Python."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{place} cannot be read as Python ({error}): mend it") from error


def parents(module: str) -> list[str]:
    """The packages above a module, the nearest first."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def short_hash(text: str) -> str:
    """The first twelve digits of the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
