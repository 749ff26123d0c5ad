"""Long streams of rows from a small dataset, whose mix changes by a stated size, and how soon a monitor alarms."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from aisec_lab.core.intervals import median_interval, poisson_interval
from aisec_lab.evaluation.table import rate

PER = 10_000  # rows that false alarms are counted in


def tilted_weights(numbers: Tensor, shift: float) -> Tensor:
    """The weights of rows by which a number's mean is shifted, closest to equal weights (exponential tilting).

    Of all weights with that mean, these have the least Kullback-Leibler divergence from equal ones (Csiszar, 1975).

    Args:
        numbers: of each row of a dataset (N,), not all equal.
        shift: of the weighted mean from the mean, in standard deviations of the numbers.

    Returns:
        Weights (N,), float64, of sum 1.

    Raises:
        ValueError: equal or infinite numbers, or a shift that no mix of the rows has.
    """
    values = numbers.double()
    scores = ((values - values.mean()) / values.std(correction=0)).numpy()
    if not np.isfinite(scores).all():
        raise ValueError("numbers must be finite and not all equal: a shift is stated in their standard deviations")
    if not scores.min() < shift < scores.max():
        raise ValueError(
            f"a mix of these rows has a mean from {scores.min():.2f} to {scores.max():.2f} standard deviations from "
            f"theirs, got a shift of {shift}"
        )

    def weights(slope: float) -> np.ndarray:
        grown = np.exp(slope * scores - (slope * scores).max())
        return grown / grown.sum()

    reach = 1.0
    while not weights(-reach) @ scores < shift < weights(reach) @ scores:
        reach *= 2
    slope = brentq(lambda slope: weights(slope) @ scores - shift, -reach, reach, xtol=1e-14)
    return torch.from_numpy(weights(slope))


def drifting_rows(weights: Tensor, *, start: int, length: int, ramp: int, generator: torch.Generator) -> Tensor:
    """Draw a stream of rows with replacement, at first all rows equally often, later by weights.

    Args:
        weights: of the N rows of a dataset, after the change (N,), float64.
        start: rows of the stream before the change, at least 0.
        length: rows of the stream, at least `start`.
        ramp: rows during which the change grows evenly from nothing to all of it; 1 is a sudden change.
        generator: draws the rows.

    Returns:
        Numbers of rows in the dataset (length,), int64.

    Raises:
        ValueError: a length, start or ramp out of range.
    """
    if not 0 <= start <= length or ramp < 1:
        raise ValueError(f"start lies in 0..length and ramp is at least 1, got {start}, {length} and {ramp}")
    size = len(weights)
    before = torch.randint(size, (length,), generator=generator)
    if start == length:
        return before
    after = torch.multinomial(weights, length, replacement=True, generator=generator)
    share = ((torch.arange(length) - start + 1) / ramp).clamp(0, 1)
    return torch.where(torch.rand(length, generator=generator, dtype=torch.float64) < share, after, before)


def alarm_delay(alarms: Iterable[int], start: int) -> float:
    """How many rows a change had when a monitor alarmed.

    Args:
        alarms: numbers of the rows with an alarm.
        start: number of the first changed row. Earlier alarms are false, and are left out.

    Returns:
        Rows from the first changed one to that of the alarm, both included; infinity without an alarm.
    """
    return min((row - start + 1.0 for row in alarms if row >= start), default=float("inf"))


def false_alarm_row(alarms: int, rows: int, **cell: Any) -> dict[str, Any]:
    """A row of the table for the false alarms in 10,000 rows, with Garwood's exact 95 % interval.

    The interval is for alarms that come independently of each other, as in a Poisson process.

    Args:
        alarms: how many there were.
        rows: of the streams without a change, all together, at least 1.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        `metric` (`false_alarms_per_10000`), `value`, `low`, `high`, `n` (the rows), and the other columns.
    """
    low, high = (PER / rows * end for end in poisson_interval(alarms))
    value = PER / rows * alarms
    return {"metric": "false_alarms_per_10000", "value": value, "low": low, "high": high, "n": rows} | cell


def delay_rows(delays: Sequence[float], horizon: int, **cell: Any) -> list[dict[str, Any]]:
    """Rows of the table for the delays of a monitor over seeds.

    A delay beyond the horizon counts as the horizon. So a median of that size means that the change was missed in half
    of the streams, or more.

    Args:
        delays: of each stream, as `alarm_delay` returns them; at least one.
        horizon: changed rows that each stream has.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        `delay`, the median with its distribution-free 95 % interval, and `missed`, the share of the streams without an
        alarm, with that of Clopper and Pearson.
    """
    counted = [min(delay, horizon) for delay in delays]
    low, high = (float(np.clip(end, 1, horizon)) for end in median_interval(counted))
    delay = {"metric": "delay", "value": float(median(counted)), "low": low, "high": high, "n": len(delays)} | cell
    return [delay, rate("missed", sum(delay > horizon for delay in delays), len(delays), **cell)]
