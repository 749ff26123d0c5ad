"""Ctrl-C, which must not tear what is being recorded."""

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType


class Interrupt(AbstractContextManager["Interrupt"]):
    """While it is entered, SIGINT raises KeyboardInterrupt only in `check` and in `at_once`, or when it comes twice."""

    def __init__(self) -> None:
        self.asked = self.now = False

    def __enter__(self) -> "Interrupt":
        """Take over SIGINT."""
        self.former = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        signal.signal(signal.SIGINT, self.former)

    def check(self) -> None:
        """Raise KeyboardInterrupt where Ctrl-C has been pressed."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In here Ctrl-C is heard at once."""
        self.check()
        self.now = True
        try:
            yield
        finally:
            self.now = False

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if self.now or again:
            raise KeyboardInterrupt
