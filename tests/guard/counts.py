"""What the tests of monitors share: how often they alarm, and how often they may."""

from collections.abc import Callable

from scipy.stats import poisson
from torch import Tensor

from aisec_lab.guard import StreamMonitor

Draw = Callable[[int], Tensor]


def alarm_count(make: Callable[[], StreamMonitor], draw: Draw, *, streams: int, rows: int) -> int:
    """The alarms of a fresh monitor, with a fresh reference, on each of several streams."""
    return sum(len(make().update(draw(rows))) for _ in range(streams))


def may_be(count: int, expected: float) -> bool:
    """Whether a count is not too large for what is expected at most: the test errs once in 10,000 times."""
    return bool(poisson.sf(count - 1, expected) > 1e-4)
