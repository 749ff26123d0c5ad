"""Thresholds that follow the traffic, within limits, with a record of every change."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class ThresholdChange:
    """A change of a threshold, for the ledger.

    Args:
        name: of the filter.
        before, after: the threshold.
        rows: scores that the tuner has seen so far.
        alarms: how many of the last scores, since the change before this one, were above the threshold of their time.
        since: how many scores those were.
        why: the cause, in words.
    """

    name: str
    before: float
    after: float
    rows: int
    alarms: int
    since: int
    why: str


@dataclass(eq=False)
class ThresholdTuner:
    """Move a filter's threshold so that a stated share of the traffic is above it.

    Each score above the tracked threshold raises it by `step * (1 - rate)`, each other one lowers it by `step * rate`:
    the quantile tracking of Angelopoulos et al. (2023, arXiv:2307.16895, eq. 2). While it stays inside its limits, the
    share of T counted scores above it differs from `rate` by at most (high - low) / (step T), for any scores in any
    order. The tracked threshold takes effect every `every` scores.

    The tuner cannot tell attacks from changed traffic: an attacker who sends many suspicious rows raises the threshold.
    `low` and `high` bound how far, and a threshold at its limit is named as a cause. Only some scores of each client
    count between two changes, so that one client alone cannot move it at will.

    Args:
        name: of the filter.
        threshold: to begin with, in [low, high].
        rate: share of the scores that may be above the threshold, in (0, 1).
        step: length of a step, in the units of the score; positive.
        low, high: the limits of the threshold.
        every: scores between two changes that take effect and are recorded, at least 1.
        most: scores of one client that count between two changes, at least 1.
        record: called with each change, such as to append it to the ledger; the change takes effect after it returns.

    Attributes:
        threshold: the one in effect.
        rows: scores seen.
        counted: scores that moved the threshold.

    Raises:
        ValueError: a setting out of its range.
    """

    name: str
    threshold: float
    rate: float
    step: float
    low: float
    high: float
    every: int = 500
    most: int = 50
    record: Callable[[ThresholdChange], object] | None = None
    rows: int = field(default=0, init=False)
    counted: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.low <= self.threshold <= self.high or not math.isfinite(self.high - self.low):
            raise ValueError(f"low <= threshold <= high must hold, got {self.low}, {self.threshold}, {self.high}")
        if not 0 < self.rate < 1 or not 0 < self.step < math.inf:
            raise ValueError(f"rate must lie in (0, 1) and step be positive, got {self.rate} and {self.step}")
        if self.every < 1 or self.most < 1:
            raise ValueError(f"every and most must be at least 1, got {self.every} and {self.most}")
        self._next = self.threshold
        self._begin()

    def update(self, scores: Tensor, *, client: str) -> float:
        """Take scores of the traffic into account.

        Args:
            scores: of the filter, (N,), in the order of the rows; NaN and infinity count as an alarm.
            client: name of the credential that sent the rows.

        Returns:
            The threshold in effect after them.
        """
        for score in scores.tolist():
            alarm = not score <= self.threshold
            self.rows += 1
            self._since += 1
            self._alarms += alarm
            sent = self._sent.get(client, 0)
            if sent < self.most:
                self._sent[client] = sent + 1
                self.counted += 1
                moved = self._next + self.step * ((not score <= self._next) - self.rate)
                self._next = min(max(moved, self.low), self.high)
            if self._since == self.every:
                self._change()
        return self.threshold

    def _change(self) -> None:
        """Let the tracked threshold take effect, and record why."""
        if self._next != self.threshold:
            seen = f"{self._alarms} alarms in {self._since} rows, {self.rate:g} of them are stated"
            limit = "; the threshold is at its limit" if self._next in (self.low, self.high) else ""
            change = ThresholdChange(
                self.name, self.threshold, self._next, self.rows, self._alarms, self._since, seen + limit
            )
            if self.record is not None:
                self.record(change)
            self.threshold = self._next
        self._begin()

    def _begin(self) -> None:
        self._since, self._alarms, self._sent = 0, 0, dict[str, int]()
