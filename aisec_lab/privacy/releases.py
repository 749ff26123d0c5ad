"""Counts of private rows under differential privacy, and how far OpenDP's noise is expected to move them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from aisec_lab.privacy.columns import Charge, check_categories, checked, places
from aisec_lab.privacy.noise import Cells, Floats, ReleaseNoise


@dataclass(frozen=True)
class Release:
    """What was released, and what its noise is expected to have done to it; all of it may be published.

    Args:
        value: float64. Counts are as the noise left them, unbiased and perhaps negative: see `consistent`.
        low, high: a 95 % interval for what each entry of `value` would be without noise; of many entries, some lie
            outside of theirs.
        deviation, expected_error: standard deviation and expected absolute value of the error, of value's shape:
            exact for counts, to first order for means; of quantiles, to first order in shares of the rows.
        noise: its name, scale, epsilon and delta.
        simulated: the noise came from a seed: not for release.
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
    """A table of counts of private rows with noise, and what follows from it.

    Neighbours are data sets of which one has one row more. Everything public is a field: categories, bounds, levels.
    Nothing takes them from the rows where they are left out: the least value, or which categories occur, can tell of a
    single row. So does a call that is refused: its message is for who holds the rows.

    Args:
        epsilon: what a release spends.
        delta: above 0 the noise is Gaussian, and a release spends it as well.

    Args of the call:
        columns: private, (N,) each: numbers, or whatever the categories are.
        charge: is told the statistic's name, epsilon and delta before any noise is drawn; where it raises, nothing is
            released. The noise is the operating system's: a release stands outside byte-identity.

    Args of `simulate`: the columns, and the generator of the noise. What it returns is for studies, is marked so, and
        is charged to nobody.

    Raises:
        ValueError: a field out of range; no rows, columns of unequal length, NaN, a value that is not among the
            categories, a delta of 1 / N or more.
    """

    epsilon: float
    delta: float = field(default=0.0, kw_only=True)
    columns: ClassVar[int] = 1
    unit: ClassVar[int] = 1

    def __post_init__(self) -> None:
        ReleaseNoise(self.epsilon, self.delta)

    @cached_property
    def noise(self) -> ReleaseNoise:
        """What a release is given."""
        return ReleaseNoise(self.epsilon, self.delta, self.unit)

    def __call__(self, *columns: ArrayLike, charge: Charge | None = None) -> Release:
        cells = self._counted(columns)
        if charge is not None:
            charge(type(self).__name__, self.epsilon, self.delta)
        return self._release(self.noise.added(cells), False)

    def simulate(self, *columns: ArrayLike, generator: torch.Generator) -> Release:
        """What a call would release, had its noise come from `generator`."""
        cells = self._counted(columns)
        return self._release(self.noise.simulated(cells, generator), True)

    def _counted(self, columns: Sequence[ArrayLike]) -> Cells:
        arrays = checked(columns, self.columns, self.delta, type(self).__name__)
        _ = self.noise.error  # what can fail has failed before anything is charged
        return self._cells(*arrays)

    @abstractmethod
    def _cells(self, *columns: Any) -> Cells:
        """The table, which a row moves by `unit` at most in L1."""

    def _release(self, noisy: Cells, simulated: bool) -> Release:
        value, (deviation, expected, reach) = noisy.astype(np.float64), self.noise.error
        low, high = np.asarray(value - reach), np.asarray(value + reach)
        return Release(
            value, low, high, np.full(noisy.shape, deviation), np.full(noisy.shape, expected), self.noise, simulated
        )


@dataclass(frozen=True)
class Count(Statistic):
    """How many rows there are. The value has shape ()."""

    def _cells(self, *columns: Any) -> Cells:
        return np.array(len(columns[0]), dtype=np.int64)


@dataclass(frozen=True)
class Histogram(Statistic):
    """How many rows are of each category: a data set's classes, a column's groups.

    Args:
        categories: all that there can be, whether they occur or not; the value has their order.
    """

    categories: Sequence[Hashable]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_categories(self.categories)

    def _cells(self, *columns: Any) -> Cells:
        return np.bincount(places(columns[0], self.categories), minlength=len(self.categories))


@dataclass(frozen=True)
class CrossTable(Statistic):
    """How many rows are of each pair of categories of two columns.

    Args:
        first, second: the categories of either; the value has shape (len(first), len(second)).
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
        pairs = places(columns[0], self.first) * across + places(columns[1], self.second)
        return np.bincount(pairs, minlength=rows * across).reshape(rows, across)


def consistent(counts: ArrayLike, total: float) -> Floats:
    """The nearest table without a negative entry that sums to a total (Duchi et al., 2008, ICML, figure 1).

    It only works on what has been released, and so spends nothing.

    Args:
        counts: any shape, at least one entry.
        total: not negative; published or released before.

    Raises:
        ValueError: a total that is negative or not finite, no entry, or one that is not finite.
    """
    table = _finite(counts)
    if not (0 <= total < math.inf and table.size):
        raise ValueError(f"a table with an entry at least sums to 0 or more, got {table.size} entries, total {total}")
    ordered = np.sort(table, axis=None)[::-1]
    surplus = (np.cumsum(ordered) - total) / np.arange(1, table.size + 1)
    return np.maximum(table - surplus[np.flatnonzero(ordered >= surplus)[-1]], 0.0)


def whole(counts: ArrayLike) -> Cells:
    """Counts (any shape) rounded to integers that keep their sum, itself rounded: the largest remainders go up.

    Raises:
        ValueError: a count that is not finite, which would become an integer all the same.
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
