"""Windows of a stream against a reference by permutation tests, whose level is exact."""

import math

import torch
from torch import Tensor

from aisec_lab.guard.checks import check_numbers
from aisec_lab.guard.monitor import WindowMonitor
from aisec_lab.guard.two_sample import TwoSampleStatistic, energy_distance

EXCEEDANCES = 2  # so many divisions that are at least as extreme end a test: with more, power and cost rise
BATCH, LARGEST = 16, 128  # divisions that are tried together, at first and at most
SLACK = 1e-9  # statistics that differ by rounding alone count as equal


def sequential_p_value(
    reference: Tensor,
    rows: Tensor,
    statistic: TwoSampleStatistic,
    *,
    divisions: int,
    exceedances: int = EXCEEDANCES,
    generator: torch.Generator,
) -> float:
    """The sequential Monte Carlo p-value of a permutation test (Besag & Clifford, 1991, equation 2).

    Random divisions of the pooled rows are tried until `exceedances` of them are at least as extreme as the real one.
    So the p-value of an ordinary window costs few divisions. P(p <= a) <= a holds for each a if the rows are
    exchangeable with the reference, with equality at the values that p can take if no statistics are equal.

    Args:
        reference: rows without a change (N, D), float64.
        rows: rows in question (w, D), float64.
        statistic: compares a part of the pooled rows with the rest.
        divisions: at most, the real one included; at least 2.
        exceedances: at which the test stops, at least 1.
        generator: draws the divisions.

    Returns:
        The p-value, in (0, 1].
    """
    pooled = torch.cat([reference, rows])
    real = torch.arange(len(reference), len(pooled))
    observed = statistic(pooled, real[None])
    bound = observed - SLACK * (1 + observed.abs())
    tried, extreme, batch = 0, 0, BATCH
    while tried < divisions - 1:
        batch = min(batch, divisions - 1 - tried)
        draws = torch.rand(batch, len(pooled), generator=generator, dtype=torch.float64)
        reached = extreme + (statistic(pooled, draws.topk(len(rows)).indices) >= bound).cumsum(0)
        if reached[-1] >= exceedances:
            return exceedances / (tried + 1 + int((reached < exceedances).sum()))
        tried, extreme, batch = tried + batch, int(reached[-1]), min(2 * batch, LARGEST)
    return (extreme + 1) / divisions


class PermutationMonitor(WindowMonitor):
    """Alarm when a window of rows differs from the reference (permutation test; Fisher, 1935).

    Without change the level of each test is exact, whatever the distribution, for any number of columns. It is exact on
    average over references: with one reference, which happens to lie apart, there may be more or fewer false alarms,
    the less so the longer the reference is than a window.

    Values of `update`: shape (N,) or (N, D) as the reference, finite.

    Args:
        reference: rows without a change (R,) or (R, D), finite, at least as many as a window has.
        window: rows in a window, at least 2.
        false_alarms: expected number in 10,000 rows without a change, in (0, 10,000 / window).
        statistic: compares a window with the reference.
        generator: draws the divisions of the permutation tests.

    Raises:
        ValueError: a setting out of range, or a reference that is shorter than a window.
    """

    def __init__(
        self,
        reference: Tensor,
        *,
        window: int = 50,
        false_alarms: float = 1.0,
        statistic: TwoSampleStatistic = energy_distance,
        generator: torch.Generator,
    ) -> None:
        super().__init__(window, false_alarms)
        self.shape = tuple(reference.shape[1:]) if isinstance(reference, Tensor) else ()
        numbers = check_numbers(reference, self.shape, "the reference")
        if len(self.shape) > 1 or window < 2 or len(numbers) < window:
            raise ValueError(
                f"a reference of numbers or vectors has at least as many rows as a window, which has two or more, got "
                f"{tuple(numbers.shape)} and a window of {window}"
            )
        self.reference, self.statistic, self.generator = _columns(numbers), statistic, generator
        self._divisions = math.ceil(EXCEEDANCES / self.level)  # so that p <= level if fewer are as extreme

    def checked(self, values: Tensor) -> Tensor:
        """Finite numbers, or vectors of the reference's length."""
        return _columns(check_numbers(values, self.shape, "monitored values"))

    def differs(self, rows: Tensor) -> bool:
        """Whether the p-value of a window (w, D) is at most the level."""
        p = sequential_p_value(
            self.reference, rows, self.statistic, divisions=self._divisions, generator=self.generator
        )
        return p <= self.level


def _columns(numbers: Tensor) -> Tensor:
    """Numbers (N,) as one column (N, 1)."""
    return numbers[:, None] if numbers.ndim == 1 else numbers
