"""What happens in a run of `aisec repro`, and who is told."""

from pathlib import Path
from typing import NamedTuple, Protocol


class Failure(NamedTuple):
    """A stage that failed.

    Args:
        addressing: DVC's name of it.
        reason: one line.
        log: what its command printed, where it was run.
    """

    addressing: str
    reason: str
    log: Path | None


class Watcher(Protocol):
    """The receiver of the events of a run."""

    def started(self, addressing: str, last: float | None) -> None:
        """A stage began; what it took last time, in seconds, where that is known."""

    def ran(self, addressing: str, seconds: float) -> None:
        """A stage has run and is recorded."""

    def restored(self, addressing: str) -> None:
        """A stage's outputs came from the cache."""

    def unchanged(self, addressing: str) -> None:
        """A stage was up to date."""

    def failed(self, failure: Failure) -> None:
        """A stage failed, or was ended."""

    def skipped(self, addressing: str) -> None:
        """A stage was not looked at, as one that it needs failed."""

    def tick(self, left: float) -> None:
        """Time passes; about how many seconds are left."""
