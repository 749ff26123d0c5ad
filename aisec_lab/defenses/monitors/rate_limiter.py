"""A rate: no client may ask too many rows within a time."""

from collections import deque
from collections.abc import Callable, Sequence

from torch import Tensor

from aisec_lab.defenses.monitors.watch import QueryMonitor


class RateLimiter(QueryMonitor):
    """At most so many rows of a client within a window of time; the score is how many there are.

    A call costs the same on average, however many came before.

    Args:
        rows: that may be asked within a window; one more rings.
        window: length of it, in the units of the clock; a call counts until exactly so much later, not then.
        clock: called once for each call of a client that is not locked out, gives numbers that never fall. For a study,
            counted ticks, such as `itertools.count().__next__`, which is a window of the last calls to all clients; for
            a service, seconds.
        withhold: as for `QueryMonitor`.

    Raises:
        ValueError: no row or no window; on a call, a clock that goes back.
    """

    def __init__(self, rows: int, window: float, *, clock: Callable[[], float], withhold: bool = False) -> None:
        if rows < 1 or not window > 0:
            raise ValueError(f"rows must be at least 1 and window positive, got {rows} and {window}")
        super().__init__(rows, withhold)
        self.window, self.clock = window, clock
        self._calls: dict[str, deque[tuple[float, int]]] = {}  # when, and how many rows
        self._within: dict[str, int] = {}

    def scores(self, client: str, x: Tensor, answers: Tensor) -> Sequence[float]:
        """How many rows of the client lie within the window, up to each of these."""
        now, calls = self.clock(), self._calls.setdefault(client, deque())
        if calls and now < calls[-1][0]:
            raise ValueError(f"the clock went back from {calls[-1][0]} to {now}: give one that never falls")
        within = self._within.get(client, 0)
        while calls and calls[0][0] <= now - self.window:
            within -= calls.popleft()[1]
        calls.append((now, len(x)))
        self._within[client] = within + len(x)
        return [within + place for place in range(1, len(x) + 1)]
