"""Which stages a file reaches: by their code, as an input, or through the parameters that it composes to."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import fill

from aisec_lab.workbench.imports import PACKAGE
from aisec_lab.workbench.keys import MAKES_KEYS, current_keys
from aisec_lab.workbench.memory import Memory
from aisec_lab.workbench.sources import SOURCE, Sources
from aisec_lab.workbench.stages import Declared, declared


def stages_reached(file: Path) -> str:
    """Say which stages of the project in which we stand a file reaches; those that read their outputs may follow.

    Args:
        file: its path from the project's root; a folder counts with all that is in it.

    Returns:
        Lines for a terminal: how many, then the stages, grouped by study.

    Raises:
        FileNotFoundError: no such file, and no stage has it as an input.
        ValueError: a configuration file of which it can't be told what it composes to.
    """
    root = Path.cwd()
    stages = [stage for stage in declared() if stage.cmd.split()[:2] != ["aisec", MAKES_KEYS]]
    note, found = "", {stage.key for stage in stages if any(_meet(file, Path(dep)) for dep in stage.deps)}
    if not ((root / file).exists() or found):
        raise FileNotFoundError(f"no {file}: name a file of the project, from where you stand")
    if file.parts[0] == PACKAGE:
        modules, keys = modules_of(file, Sources(root, Memory(root).parsed())), current_keys(root, stages)
        found |= {key for key, reached in keys.stages.items() if modules & set(reached)}
    elif file.name == "dvc.yaml":
        study = file.parent.name or "root"
        found |= {stage.key for stage in stages if stage.study == study}
    elif file == Path("params.yaml"):
        found |= {stage.key for stage in stages if stage.parameters}
    elif file.parts[0] == "configs" and file.suffix == ".yaml":
        from aisec_lab.workbench.config_reach import composed_from  # a second of Hydra

        changed = composed_from(file)
        names = fill(" ".join(changed), 118, initial_indent="  through   ", subsequent_indent=" " * 12)
        note = f"\n{names}" if changed else ""
        note += "\n  and what its list `defaults` chooses, file by file" * ("\ndefaults:" in f"\n{file.read_text()}")
        found |= {stage.key for stage in stages if any(_within(a, b) for a in stage.parameters for b in changed)}
    count = f"{len(found)} stage{'s' * (len(found) != 1)}" if found else "none"
    return f"{file} reaches {count}{note}" + "".join(f"\n{line}" for line in _grouped(stages, found))


def modules_of(file: Path, sources: Sources) -> set[str]:
    """The modules that consist of a file, or read it; of a folder those of all its files.

    Args:
        file: its path from the root of the package's sources.
        sources: of the package.
    """
    stub, place = file.with_suffix(".py") if file.suffix == SOURCE[1] else file, sources.root / file
    return {
        module
        for module, code in sources.modules.items()
        if _meet(stub, Path(sources.place(module)))
        or (file.suffix not in SOURCE and code.parent in place.parents and place in sources.data(module).values())
    }


def _meet(one: Path, other: Path) -> bool:
    """Whether one path is the other, or within it."""
    return one == other or one in other.parents or other in one.parents


def _within(one: str, other: str) -> bool:
    """The same for the names of two parameters."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _grouped(stages: Sequence[Declared], found: Iterable[str]) -> list[str]:
    """The stages that were found, by study; where they are all cells of a matrix, their number stands for them."""
    names: dict[str, list[str]] = {}
    for (study, name), cells in groupby(stages, lambda stage: (stage.study, stage.name.partition("@")[0])):
        every = list(cells)
        those = [cell.name for cell in every if cell.key in found]
        whole = len(those) == len(every) > 1
        names.setdefault(study, []).extend([f"{name}@* ({len(those)})"] if whole else those)
    width = max(map(len, names), default=0) + 4
    return [
        fill(" ".join(sorted(those)), 118, initial_indent=f"  {study}".ljust(width), subsequent_indent=" " * width)
        for study, those in sorted(names.items())
        if those
    ]
