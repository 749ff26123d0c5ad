"""Which modules of the package Python may run on behalf of a piece of code: names are followed, nothing is imported."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from aisec_lab.workbench.imports import PACKAGE, Use
from aisec_lab.workbench.sources import Sources, parents

Busy = frozenset[tuple[str, str]]
Run = frozenset[tuple[str, str]]  # modules that are run, with ""; exports that are used, with where they lead


class Reached(NamedTuple):
    """What a piece of code reaches.

    Args:
        modules: those that Python may run on its behalf, parent packages included.
        exports: the lazily exported names that it may use on the way, such as `aisec_lab.attacks.PGD`, and the module
            that each leads to: a stub that leads elsewhere changes what the same modules do.
    """

    modules: frozenset[str]
    exports: dict[str, str]


class Reach:
    """Follows the names that code uses to the modules that give them their values, and on from those.

    Where it cannot be told what is used of a package, it is all that the package exports: the answer may hold modules
    that are never run, and lacks none that is, but for imports whose names are made while the code runs.

    Args:
        sources: the package.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._resolved: dict[tuple[str, bool], Run | None] = {}
        self._needs: dict[str, Run] = {}

    def of(self, uses: Iterable[Use], where: str) -> Reached:
        """What is reached when code that uses these names is run.

        Args:
            uses: the names; see `Facts.uses` and `target`.
            where: the file that uses them, for the message of an error.

        Raises:
            ValueError: it, or a module that is reached, imports a name that the package lacks.
        """
        reached: set[tuple[str, str]] = set()
        todo = set(self._run_for(uses, where))
        while todo:
            step = name, leads_to = todo.pop()
            reached.add(step)
            if not leads_to:
                if name not in self._needs:
                    self._needs[name] = self._run_for(self.sources.facts(name).uses, self.sources.place(name))
                todo |= self._needs[name] - reached
        exports = {name: leads_to for name, leads_to in sorted(reached) if leads_to}
        return Reached(frozenset(name for name, leads_to in reached if not leads_to), exports)

    def _run_for(self, uses: Iterable[Use], where: str) -> Run:
        """What gives these names their values, before what is used for that in turn."""
        run: set[tuple[str, str]] = set()
        for use in uses:
            found = self._resolve(use)
            if found is None and use.imported:
                raise ValueError(f"{where} names {use.name}, {self._missing(use.name)}")
            run |= found or set()
        return frozenset(run)

    def _resolve(self, use: Use) -> Run | None:
        key = use.name, use.whole
        if key not in self._resolved:
            self._resolved[key] = self._follow(use.name, use.whole, frozenset())
        return self._resolved[key]

    def _follow(self, name: str, whole: bool, busy: Busy) -> Run | None:
        """What is run to give a full name its value; `None` if there is no such thing."""
        top, *rest = name.split(".")
        return self._attribute(top, rest, whole, busy) if top in self.sources.modules else None

    def _attribute(self, here: str, rest: list[str], whole: bool, busy: Busy) -> Run | None:
        """The same for the attribute `rest` of the module `here`, name by name."""
        run: Run = frozenset((module, "") for module in (here, *parents(here)))
        if not rest:
            return run | self._everything(here, busy) if whole else run
        part, *further = rest
        if (here, part) in busy:  # modules that import a name from each other, and none defines it
            return None
        busy |= {(here, part)}
        facts, below = self.sources.facts(here), f"{here}.{part}"
        exported = self.sources.exports(here).get(part, ())
        run |= {(below, " ".join(exported))} if exported else set()
        ways = [self._attribute(module, rest, whole, busy) for module in exported]
        if below in self.sources.modules:
            ways.append(self._attribute(below, further, whole, busy))
        for name in (*facts.bound.get(part, ()), *(f"{star}.{part}" for star in facts.stars)):
            ways.append(self._follow(".".join([name, *further]), whole, busy))
        found = [way for way in ways if way is not None]
        there = part in facts.defines or ("__getattr__" in facts.defines and not facts.lazy)
        return run.union(*found) if found or there else None

    def _everything(self, module: str, busy: Busy) -> Run:
        """What is run if any attribute of a module may be used, at any depth: its exports, packages, and imports."""
        run: set[tuple[str, str]] = set()
        if (module, "*") not in busy:
            busy |= {(module, "*")}
            for name in (*self.sources.exports(module), *self.sources.facts(module).bound):
                run |= self._attribute(module, [name], True, busy) or set()
            for other in self.sources.modules:
                if other.rpartition(".")[0] == module and self.sources.is_package(other):
                    run |= {(other, "")} | self._everything(other, busy)
        return frozenset(run)

    def _missing(self, name: str) -> str:
        """What is wrong with a name that leads nowhere."""
        module = next((parent for parent in parents(name) if parent in self.sources.modules), PACKAGE)
        if module not in self.sources.modules:
            return f"and there is no {PACKAGE}/ in {self.sources.root}: go to the project's root"
        part, exports = name.removeprefix(f"{module}.").split(".")[0], self.sources.exports(module)
        if part in exports:
            return f"which {module} exports from {' and '.join(exports[part])}, where it is not: mend the stub"
        below = [other.rpartition(".")[2] for other in self.sources.modules if other.rpartition(".")[0] == module]
        near = difflib.get_close_matches(part, {*exports, *self.sources.facts(module).defines, *below}, 1)
        return f"but {module} has no {part!r}: " + (f"did you mean {near[0]!r}?" if near else "name what is there")


def target(name: str) -> Use:
    """The use that a configuration makes of what it names, such as `aisec_lab.attacks.PGD`."""
    return Use(name, imported=True, whole=True)
