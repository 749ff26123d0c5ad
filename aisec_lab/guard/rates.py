"""Shares of rows that something happens to: against a reference sample, or against a promise."""

import numpy as np
from scipy.special import bdtrc
from scipy.stats import hypergeom
from torch import Tensor

from aisec_lab.guard.checks import check_events, check_numbers
from aisec_lab.guard.monitor import WindowMonitor


def least_surprising_count(reference: int, n: int, window: int, level: float) -> int:
    """The least count in a window that Fisher's exact test finds too large against a reference (Fisher, 1935).

    Args:
        reference: how often it happened in the reference, from 0 to n.
        n: rows of the reference.
        window: rows of a window.
        level: of the one-sided test, in (0, 1).

    Returns:
        The count; `window + 1` if none is too large.
    """
    counts = np.arange(window + 1)
    p = hypergeom.sf(counts - 1, n + window, reference + counts, window)  # given how often it happened in both together
    return int((p > level).sum())  # p falls as the count rises


class RateMonitor(WindowMonitor):
    """Alarm when something happens more often in a window than in the reference (Fisher's exact test, 1935).

    The test is conditional on the number of events in both samples, so its level holds for every rate, though the
    reference knows the rate only by its sample. It is one-sided: a falling rate raises no alarm.

    Values of `update`: whether it happened, bool (N,).

    Args:
        reference: whether it happened, of rows without a change, bool (R,), at least one row.
        window: rows in a window, at least 1.
        false_alarms: expected number in 10,000 rows without a change, at most; in (0, 10,000 / window).

    Attributes:
        least: the least count of a window that raises an alarm.

    Raises:
        ValueError: a setting out of range, or a window so short that no count could raise an alarm.
    """

    def __init__(self, reference: Tensor, *, window: int = 50, false_alarms: float = 1.0) -> None:
        super().__init__(window, false_alarms)
        events = check_events(reference, "the reference")
        if not len(events):
            raise ValueError("a reference has at least one row, got none")
        self.least = least_surprising_count(int(events.sum()), len(events), window, self.level)
        check_reachable(self.least, window, false_alarms)

    def checked(self, values: Tensor) -> Tensor:
        """Events (N,), bool."""
        return check_events(values, "monitored events")

    def differs(self, rows: Tensor) -> bool:
        """Whether a window (w,) has the least count or more."""
        return int(rows.sum()) >= self.least


class LatencyMonitor(WindowMonitor):
    """Alarm when more requests are slow than was promised (exact binomial test).

    There is no reference sample: the share is a promise, such as "at most 5 % of the requests take more than 20 ms". A
    service that keeps it with room to spare has fewer false alarms than stated.

    Values of `update`: latencies (N,), at least 0, in the unit of the limit.

    Args:
        limit: a request that takes longer is slow; above 0.
        share: promised bound of the share of slow requests, in (0, 1).
        window: requests in a window, at least 1.
        false_alarms: expected number in 10,000 requests while the promise is kept, at most; in (0, 10,000 / window).

    Attributes:
        least: the least count of slow requests in a window that raises an alarm.

    Raises:
        ValueError: a setting out of range, or a window so short that no count could raise an alarm.
    """

    def __init__(self, limit: float, share: float, *, window: int = 50, false_alarms: float = 1.0) -> None:
        super().__init__(window, false_alarms)
        if not limit > 0 or not 0 < share < 1:
            raise ValueError(f"limit must be positive and share lie in (0, 1), got {limit} and {share}")
        self.limit = limit
        tails = np.append(1.0, bdtrc(np.arange(window), window, share))  # P(X >= count) for counts 0..window
        self.least = int((tails > self.level).sum())
        check_reachable(self.least, window, false_alarms)

    def checked(self, values: Tensor) -> Tensor:
        """Whether each request was slow (N,), bool."""
        latencies = check_numbers(values, (), "latencies")
        if (latencies < 0).any():
            raise ValueError(f"latencies must not be negative, got {latencies.min():g}: use a monotonic clock")
        return latencies > self.limit

    def differs(self, rows: Tensor) -> bool:
        """Whether a window (w,) has the least count of slow requests or more."""
        return int(rows.sum()) >= self.least


def check_reachable(least: int, window: int, false_alarms: float) -> None:
    """Refuse, with a ValueError, a window that is too short for any alarm at its level."""
    if least > window:
        raise ValueError(
            f"no count in a window of {window} rows is rare enough for {false_alarms} false alarms in 10,000 rows: "
            "take a longer window, a longer reference, or more false alarms"
        )
