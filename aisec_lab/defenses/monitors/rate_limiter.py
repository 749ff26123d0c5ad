"""A rate limit: no client may send too many queries within a time."""

from collections import deque
from collections.abc import Callable, Sequence

from torch import Tensor

from aisec_lab.defenses.monitors.watch import QueryMonitor


class RateLimiter(QueryMonitor):
    """Limit the number of queries of a client within a sliding window of time. The score is that number.

    The cost of a call does not grow with the number of earlier calls.

    Call contract: `QueryMonitor`.

    Args:
        rows: queries that are allowed within a window, at least 1; one more raises an alarm.
        window: length of the window in the units of the clock, above 0. A call at time t counts before t + window.
        clock: returns the current time, which must never decrease; it is read once in each call of a client that is not
            locked out. A service gives seconds, such as `time.monotonic`. A study gives counted ticks, such as
            `itertools.count().__next__`; the window is then over the last calls of all clients.
        withhold: refuse all answers to a client from its first alarm on.

    Raises:
        ValueError: a setting out of range; on a call, a clock that went back.
    """

    def __init__(self, rows: int, window: float, *, clock: Callable[[], float], withhold: bool = False) -> None:
        if rows < 1 or not window > 0:
            raise ValueError(f"rows must be at least 1 and window positive, got {rows} and {window}")
        super().__init__(rows, withhold)
        self.window, self.clock = window, clock
        self._calls: dict[str, deque[tuple[float, int]]] = {}  # when, and how many rows
        self._within: dict[str, int] = {}

    def scores(self, client: str, x: Tensor, answers: Tensor) -> Sequence[float]:
        """For each query, how many queries of the client lie within the window up to it."""
        now, calls = self.clock(), self._calls.setdefault(client, deque())
        if calls and now < calls[-1][0]:
            raise ValueError(f"the clock went back from {calls[-1][0]} to {now}: give one that never falls")
        within = self._within.get(client, 0)
        while calls and calls[0][0] <= now - self.window:
            within -= calls.popleft()[1]
        calls.append((now, len(x)))
        self._within[client] = within + len(x)
        return [within + place for place in range(1, len(x) + 1)]
