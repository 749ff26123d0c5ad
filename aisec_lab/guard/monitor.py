"""The base of all monitors of a stream: each states how many false alarms it raises, and has a memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 10_000  # the rows that stated false alarms are counted in


class StreamMonitor(ABC):
    """A monitor of a stream of rows. It numbers the rows from 0 and alarms at some of them.

    Call contract: `update`. The stated rate holds while the rows of the stream are exchangeable with the reference, or
    with each other where a monitor has no reference: independent draws from one distribution are.

    Args:
        false_alarms: the expected number of alarms in 10,000 rows without any change, at most; in (0, 10,000).

    Attributes:
        rows: how many rows it has seen.

    Raises:
        ValueError: a rate out of range.
    """

    def __init__(self, false_alarms: float) -> None:
        if not 0 < false_alarms < ROWS:
            raise ValueError(
                f"false alarms are stated for each {ROWS} rows and lie in (0, {ROWS}), got {false_alarms}: 1 is usual"
            )
        self.false_alarms = false_alarms
        self.rows = 0

    def update(self, values: Tensor) -> list[int]:
        """Show the next rows of the stream to the monitor. It does not matter how the stream is cut into calls.

        Args:
            values: what the monitor watches, one row each, in the order of the stream; shape and type as the class
                says.

        Returns:
            The numbers of the rows at which it alarms, in rising order.

        Raises:
            ValueError: values of another shape or type, or that are not finite. The monitor is then as before.
        """
        values = self.checked(values)
        first, self.rows = self.rows, self.rows + len(values)
        return [first + place for place in self.alarms(values)]

    @abstractmethod
    def checked(self, values: Tensor) -> Tensor:
        """The values as `alarms` takes them; a ValueError for those that the monitor cannot judge."""

    @abstractmethod
    def alarms(self, values: Tensor) -> Iterator[int]:
        """The places in `values` at which the monitor alarms, in rising order; it remembers the values."""


class WindowMonitor(StreamMonitor):
    """A monitor that tests each window of rows by itself. Windows do not overlap; the alarm is at a window's last row.

    Each test has the level `false_alarms * window / 10,000`, so that the expected number of false alarms is the stated
    one, by the linearity of expectation. The tests may depend on each other, as they do by their common reference.

    Args:
        window: rows in a window, at least 1. A short one notices large shifts sooner, a long one small shifts at all.
        false_alarms: the expected number of alarms in 10,000 rows without any change, at most; in (0, 10,000 / window).

    Attributes:
        level: of the test of a window, in (0, 1).

    Raises:
        ValueError: no row in a window, or a level of 1 or more.
    """

    def __init__(self, window: int, false_alarms: float) -> None:
        super().__init__(false_alarms)
        if window < 1 or false_alarms * window >= ROWS:
            raise ValueError(
                f"a window of at least one row is tested at the level false_alarms * window / {ROWS} below 1, got a "
                f"window of {window} and {false_alarms} false alarms"
            )
        self.window, self.level = window, false_alarms * window / ROWS
        self._waiting: Tensor | None = None  # rows of the window that is not yet full

    def alarms(self, values: Tensor) -> Iterator[int]:
        """The last places of the windows that differ from the reference."""
        held = 0 if self._waiting is None else len(self._waiting)
        values = values.clone() if self._waiting is None else torch.cat([self._waiting, values])
        full = len(values) // self.window * self.window
        self._waiting = values[full:]
        for last in range(self.window, full + 1, self.window):
            if self.differs(values[last - self.window : last]):
                yield last - 1 - held

    @abstractmethod
    def differs(self, rows: Tensor) -> bool:
        """Whether a full window of checked rows differs from the reference; without change at most with P = `level`."""


class DummyMonitor(StreamMonitor):
    """A monitor that looks at nothing and alarms at every n-th row: the baseline of every study of monitors.

    A study that reports delays alone ranks it high, since it rings soon after any change.

    Args:
        every: rows from one alarm to the next, at least 2. All its alarms are false: 10,000 / `every` in 10,000 rows.

    Raises:
        ValueError: fewer than 2 rows.
    """

    def __init__(self, every: int) -> None:
        if every < 2:
            raise ValueError(f"a dummy alarms at every n-th row with n at least 2, got {every}")
        super().__init__(ROWS / every)
        self.every = every

    def checked(self, values: Tensor) -> Tensor:
        """Any values."""
        return values

    def alarms(self, values: Tensor) -> Iterator[int]:
        """Every n-th row of the stream, whatever it holds."""
        first = self.rows - len(values)
        yield from (place for place in range(len(values)) if (first + place + 1) % self.every == 0)
