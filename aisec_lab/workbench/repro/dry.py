"""What a run would do, without doing it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aisec_lab.workbench.repro.progress import UP_TO_DATE
from aisec_lab.workbench.repro.targets import plan

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage


def stale(repo: "Repo", targets: Sequence[str], here: Path, *, force: bool) -> Iterator[str]:
    """Lines that say which stages would run, and why.

    Args:
        repo: DVC's, locked.
        targets, here: as `targets.find` takes them.
        force: as if all that is planned were asked for.

    Yields:
        A line for each stage that is stale, and for each that may become so by a stage before it.
    """
    steps, graph = plan(repo, targets, here)
    moved: dict[Stage, str] = {}
    for stage in steps:
        why = "asked for" if force else _why(stage)
        before = [other.addressing for other in graph.successors(stage) if other in moved]
        if why:
            moved[stage] = stage.addressing
            yield f"would run  {stage.addressing}: {why}"
        elif before and not stage.frozen:
            moved[stage] = stage.addressing
            yield f"may run    {stage.addressing}: after {', '.join(before)}"
    if not moved:
        yield UP_TO_DATE


def _why(stage: "Stage") -> str:
    """The entries that changed, as DVC says it; nothing where the stage is up to date."""
    reasons = []
    for entry in stage.status().get(stage.addressing, []):
        if isinstance(entry, str):
            reasons.append(entry)
        else:
            reasons += [f"{name} is {_flat(state)}" for states in entry.values() for name, state in states.items()]
    return ", ".join(reasons)


def _flat(state: object) -> str:
    """DVC says of a parameter file which parameters changed how, of any other entry one word."""
    if isinstance(state, dict):
        return ", ".join(f"{how} ({', '.join(names)})" for how, names in _by_how(state).items())
    return str(state)


def _by_how(parameters: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, how in parameters.items():
        found.setdefault(how, []).append(name)
    return found
