"""Differentially private counts and their expected errors. Contract: docs/dp-statistics.md."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from aisec_lab.privacy.columns import Charge, category_indices, check_categories, check_columns
from aisec_lab.privacy.noise import Cells, Floats, ReleaseNoise


@dataclass(frozen=True)
class Release:
    """A released statistic with its expected error; all of it may be published.

    Args:
        value: the statistic, float64. Counts are unbiased and may be negative: see `consistent`.
        low, high: a 95 % interval for each entry of `value` without noise, of its shape.
        deviation, expected_error: standard deviation and expected absolute value of the error, of the value's shape.
            They are exact for counts and to first order for means; for quantiles they count in shares of the rows.
        noise: distribution and scale of the noise, with epsilon and delta.
        simulated: whether the noise came from a seed; such a statistic must not be published.
    """

    value: Floats
    low: Floats
    high: Floats
    deviation: Floats
    expected_error: Floats
    noise: ReleaseNoise
    simulated: bool


@dataclass(frozen=True)
class Statistic(ABC):
    """A differentially private statistic, computed from a noisy table of counts. Call contract: docs/dp-statistics.md.

    Args:
        epsilon: positive and finite.
        delta: 0 for Laplace noise; in (0, 1 / N) for Gaussian noise.

    Raises:
        ValueError: a field out of its range; in a call, what the contract names.
    """

    epsilon: float
    delta: float = field(default=0.0, kw_only=True)
    columns: ClassVar[int] = 1
    unit: ClassVar[int] = 1

    def __post_init__(self) -> None:
        ReleaseNoise(self.epsilon, self.delta)

    @cached_property
    def noise(self) -> ReleaseNoise:
        """The noise of a release."""
        return ReleaseNoise(self.epsilon, self.delta, self.unit)

    def __call__(self, *columns: ArrayLike, charge: Charge | None = None) -> Release:
        cells = self._counted(columns)
        if charge is not None:
            charge(type(self).__name__, self.epsilon, self.delta)
        return self._release(self.noise.add(cells), False)

    def simulate(self, *columns: ArrayLike, generator: torch.Generator) -> Release:
        """What a call would release, with noise from `generator`: for studies, not for publication, not charged."""
        cells = self._counted(columns)
        return self._release(self.noise.simulate(cells, generator), True)

    def _counted(self, columns: Sequence[ArrayLike]) -> Cells:
        arrays = check_columns(columns, self.columns, self.delta, type(self).__name__)
        _ = self.noise.error  # everything that can fail must fail before anything is charged
        return self._cells(*arrays)

    @abstractmethod
    def _cells(self, *columns: Any) -> Cells:
        """The table of counts; one row changes it by at most `unit` in L1."""

    def _release(self, noisy: Cells, simulated: bool) -> Release:
        value, (deviation, expected, reach) = noisy.astype(np.float64), self.noise.error
        low, high = np.asarray(value - reach), np.asarray(value + reach)
        return Release(
            value, low, high, np.full(noisy.shape, deviation), np.full(noisy.shape, expected), self.noise, simulated
        )


@dataclass(frozen=True)
class Count(Statistic):
    """The number of rows. Call contract: docs/dp-statistics.md.

    Args:
        epsilon, delta: the privacy budget.

    Returns:
        A `Release` whose `value` has shape ().
    """

    def _cells(self, *columns: Any) -> Cells:
        return np.array(len(columns[0]), dtype=np.int64)


@dataclass(frozen=True)
class Histogram(Statistic):
    """The number of rows in each category of a column. Call contract: docs/dp-statistics.md.

    Args:
        epsilon, delta: the privacy budget.
        categories: all possible categories, public, whether they occur or not.

    Returns:
        A `Release` whose `value` has shape (len(categories),).
    """

    categories: Sequence[Hashable]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_categories(self.categories)

    def _cells(self, *columns: Any) -> Cells:
        return np.bincount(category_indices(columns[0], self.categories), minlength=len(self.categories))


@dataclass(frozen=True)
class CrossTable(Statistic):
    """The number of rows in each pair of categories of two columns. Call contract: docs/dp-statistics.md.

    Args:
        epsilon, delta: the privacy budget.
        first, second: all categories of each column, public.

    Returns:
        A `Release` whose `value` has shape (len(first), len(second)).
    """

    first: Sequence[Hashable]
    second: Sequence[Hashable]
    columns: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_categories(self.first)
        check_categories(self.second)

    def _cells(self, *columns: Any) -> Cells:
        rows, across = len(self.first), len(self.second)
        pairs = category_indices(columns[0], self.first) * across + category_indices(columns[1], self.second)
        return np.bincount(pairs, minlength=rows * across).reshape(rows, across)


def consistent(counts: ArrayLike, total: float) -> Floats:
    """Project a table onto the nonnegative tables with a given sum (Duchi et al., 2008, ICML, figure 1).

    This post-processes what has been released, so it spends no budget.

    Args:
        counts: released counts of any shape, at least one entry.
        total: the sum, at least 0; public or released.

    Returns:
        The nearest such table in L2, float64, shape of `counts`.

    Raises:
        ValueError: a total that is negative or not finite, no entry, or one that is not finite.
    """
    table = _finite(counts)
    if not (0 <= total < math.inf and table.size):
        raise ValueError(f"a table with an entry at least sums to 0 or more, got {table.size} entries, total {total}")
    ordered = np.sort(table, axis=None)[::-1]
    surplus = (np.cumsum(ordered) - total) / np.arange(1, table.size + 1)
    return np.maximum(table - surplus[np.flatnonzero(ordered >= surplus)[-1]], 0.0)


def round_to_integers(counts: ArrayLike) -> Cells:
    """Round counts to integers that sum to the rounded sum: the largest remainders are rounded up.

    Args:
        counts: finite numbers of any shape.

    Returns:
        Integers, int64, shape of `counts`.

    Raises:
        ValueError: a count that is not finite.
    """
    table = _finite(counts)
    down = np.floor(table)
    up = np.argsort((down - table).ravel(), kind="stable")[: int(np.rint(table.sum()) - down.sum())]
    down.flat[up] += 1
    return down.astype(np.int64)


def _finite(counts: ArrayLike) -> Floats:
    """Counts as float64; ValueError where one is NaN or infinite."""
    table = np.asarray(counts, dtype=np.float64)
    if not np.isfinite(table).all():
        raise ValueError(f"counts are finite numbers, got {int((~np.isfinite(table)).sum())} that are not")
    return table
