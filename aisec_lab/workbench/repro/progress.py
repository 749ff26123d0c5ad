"""What a person sees of a run: a line for each stage that runs, and in the end what has become of all."""

import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from aisec_lab.workbench.repro.events import Failure

if TYPE_CHECKING:
    from rich.text import Text

UP_TO_DATE = "Data and pipelines are up to date."  # DVC's own sentence
TAIL = 15  # lines of a failed stage's log


class Lines(AbstractContextManager["Lines"]):
    """Says what happens in plain lines; the ground of what a terminal shows."""

    def __init__(self) -> None:
        self.did_run: list[str] = []
        self.did_restore: list[str] = []
        self.were_unchanged: list[str] = []
        self.were_skipped: list[str] = []
        self.failures: list[Failure] = []
        self.running: dict[str, tuple[float, float | None]] = {}
        self.left = 0.0

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be put away."""

    def started(self, addressing: str, last: float | None) -> None:
        """A stage began."""
        self.running[addressing] = time.monotonic(), last
        self.say(f"started   {addressing}{_last(last)}")

    def ran(self, addressing: str, seconds: float) -> None:
        """A stage has run."""
        del self.running[addressing]
        self.did_run.append(addressing)
        self.say(f"ran       {addressing} in {duration(seconds)}")

    def restored(self, addressing: str) -> None:
        """A stage came from the cache."""
        self.did_restore.append(addressing)
        self.say(f"restored  {addressing}")

    def unchanged(self, addressing: str) -> None:
        """A stage was up to date."""
        self.were_unchanged.append(addressing)

    def failed(self, failure: Failure) -> None:
        """A stage failed."""
        self.running.pop(failure.addressing, None)
        self.failures.append(failure)
        self.say(f"failed    {failure.addressing}: {failure.reason}")

    def skipped(self, addressing: str) -> None:
        """A stage was not looked at."""
        self.were_skipped.append(addressing)

    def tick(self, left: float) -> None:
        """Time passes."""
        self.left = left

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)

    def summary(self, *, interrupted: bool = False) -> Iterable[str]:
        """What has become of all stages, and why those that failed did."""
        for failure in self.failures:
            yield f"\n{failure.addressing} failed: {failure.reason}"
            if failure.log:
                lines = failure.log.read_text(errors="replace").splitlines()
                yield from (f"  {line}" for line in lines[-TAIL:])
                yield f"  all of it: {failure.log}"
        if not (self.did_run or self.did_restore or self.failures or interrupted):
            yield UP_TO_DATE
            return
        if interrupted:
            yield "interrupted: what had ended before is recorded, the rest is as if it had not begun"
        counts = {
            "ran": len(self.did_run),
            "restored from the cache": len(self.did_restore),
            "up to date": len(self.were_unchanged),
            "failed": len(self.failures),
            "skipped, as they need what failed": len(self.were_skipped),
        }
        yield ", ".join(f"{number} {what}" for what, number in counts.items() if number) or "nothing ran"


class Live(Lines):
    """The same in a terminal: what runs stays in sight at the bottom, with the time that is left."""

    def __enter__(self) -> "Live":
        """Begin to draw."""
        import rich.live

        self.live = rich.live.Live(get_renderable=self._picture, refresh_per_second=2, transient=True)
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Take away what was drawn."""
        self.live.__exit__(None, None, None)

    def started(self, addressing: str, last: float | None) -> None:
        """A stage began."""
        self.running[addressing] = time.monotonic(), last

    def say(self, line: str) -> None:
        """Print a line above what is drawn."""
        self.live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _picture(self) -> "Text":
        from rich.text import Text

        now = time.monotonic()
        lines = [
            f"  {name}  {duration(now - began)}{_last(last)}" for name, (began, last) in list(self.running.items())
        ]
        return Text("\n".join([*lines, f"about {duration(self.left)} left"]), no_wrap=True, overflow="ellipsis")


def progress() -> Lines:
    """What suits the place where stdout goes."""
    return Live() if sys.stdout.isatty() else Lines()


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


def _last(seconds: float | None) -> str:
    return "" if seconds is None else f" (last time {duration(seconds)})"
