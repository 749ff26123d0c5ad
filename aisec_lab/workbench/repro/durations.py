"""How long stages took: which to start first, and how much time is left."""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

UNKNOWN = 10.0  # seconds, for the first stage of its kind


class Durations:
    """Seconds that each stage took when it last ran on this machine; not a part of the project."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def last(self, addressing: str) -> float | None:
        """What a stage took last time, in seconds, or None."""
        return self.seconds.get(addressing)

    def guess(self, addressing: str) -> float:
        """What a stage may take: as last time, else as others of its matrix, else as others."""
        if addressing in self.seconds:
            return self.seconds[addressing]
        group = addressing.partition("@")[0]
        alike = [seconds for name, seconds in self.seconds.items() if name.partition("@")[0] == group]
        return statistics.median(alike or self.seconds.values() or [UNKNOWN])

    def note(self, addressing: str, seconds: float) -> None:
        """Remember what a stage took."""
        self.seconds[addressing] = round(seconds, 2)
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(self.seconds, indent=0, sort_keys=True))
        beside.replace(self.path)


def longest_paths(seconds: Mapping[Any, float], dependents: Mapping[Any, Iterable[Any]]) -> dict[Any, float]:
    """For each stage the time until all that waits for it could be over, itself included, on enough processors.

    Args:
        seconds: what each stage takes, inputs before those that need them.
        dependents: who needs a stage's outputs; only stages that are in `seconds` count.
    """
    paths: dict[Any, float] = {}
    for stage in reversed(list(seconds)):
        paths[stage] = seconds[stage] + max((paths[other] for other in dependents[stage] if other in paths), default=0)
    return paths


def time_left(paths: Iterable[float], seconds: Iterable[float], slots: int) -> float:
    """Seconds until all is over: the longest path, or the whole work on `slots` processors, whichever is more."""
    return max(max(paths, default=0.0), sum(seconds) / slots)
