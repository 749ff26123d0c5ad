"""Differentially private means and quantiles of a column of numbers. Contract: docs/dp-statistics.md."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from aisec_lab.privacy.columns import as_floats, category_indices, check_categories
from aisec_lab.privacy.noise import Cells, Floats, ReleaseNoise
from aisec_lab.privacy.releases import Release, Statistic, consistent

PARTS = 2**16  # into which a row is split between the two bounds of a mean
STEPS = 200  # of the grid on which the ends of a mean's interval are searched


@dataclass(frozen=True)
class Mean(Statistic):
    """The mean of a column whose values are clipped to bounds. Call contract: docs/dp-statistics.md.

    Each row is split into `PARTS` integer parts, which are counted for the two bounds in proportion to how near the
    value lies to each. One row changes both counts by `PARTS` together, so the number of rows, which is private too,
    costs no extra budget. The interval is Fieller's (1954): all means that the two noisy counts do not reject, and half
    a part on either side for rounding.

    Args:
        epsilon, delta: the privacy budget.
        bounds: (low, high), finite and public.

    Returns:
        A `Release` whose `value` has shape ().
    """

    bounds: tuple[float, float]
    unit: ClassVar[int] = PARTS

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self.bounds)

    def _cells(self, *columns: Any) -> Cells:
        upper = np.rint(PARTS * _position(columns[0], self.bounds)).astype(np.int64)
        return np.array([(PARTS - upper).sum(), upper.sum()])

    def _release(self, noisy: Cells, simulated: bool) -> Release:
        low, high = self.bounds
        total, upper = noisy.sum(-1).astype(np.float64), noisy[..., 1].astype(np.float64)
        known = total > 0  # else the noise is larger than the number of rows
        divisor = np.where(known, total, 1.0)
        share = np.where(known, np.clip(upper / divisor, 0, 1), 0.5)
        deviation, expected, _ = self.noise.error_of_sum(lambda k: (1 - share) ** k + share**k)
        deviation, expected = (
            np.asarray((high - low) * np.where(known, np.minimum(error / divisor, 1), 1))
            for error in (deviation, expected)
        )
        least, most = (
            np.where(known, end, at) for end, at in zip(_fieller(upper, divisor, self.noise), (0, 1), strict=True)
        )
        value, least, most = (np.asarray(low + (high - low) * part) for part in (share, least, most))
        return Release(value, least, most, deviation, expected, self.noise, simulated)


@dataclass(frozen=True)
class GroupMeans(Mean):
    """The mean of a column in each group of another column. Call contract: docs/dp-statistics.md.

    Computed as `Mean` in each group; a row is in one group only, so the groups share one budget. A call takes the
    values, then the groups.

    Args:
        epsilon, delta: the privacy budget.
        bounds: (low, high), finite and public.
        categories: all groups that there can be, public.

    Returns:
        A `Release` whose `value` has shape (len(categories),). The interval of an empty group reaches about from bound
        to bound.
    """

    categories: Sequence[Hashable]
    columns: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_categories(self.categories)

    def _cells(self, *columns: Any) -> Cells:
        upper = np.rint(PARTS * _position(columns[0], self.bounds)).astype(np.int64)
        cells = np.zeros((len(self.categories), 2), dtype=np.int64)
        np.add.at(cells, category_indices(columns[1], self.categories), np.stack([PARTS - upper, upper], 1))
        return cells


@dataclass(frozen=True)
class Quantiles(Statistic):
    """Quantiles of a column whose values are clipped to bounds. Call contract: docs/dp-statistics.md.

    All come from one noisy histogram. The interval of a level covers the bins that the noise cannot rule out: those
    before which not clearly more than this share of the rows lies, and up to whose end not clearly less.

    Args:
        epsilon, delta: the privacy budget.
        levels: in (0, 1), in any order.
        bounds: (low, high), finite and public.
        bins: number of bins of equal width between the bounds, at least 2; values are interpolated inside a bin.

    Returns:
        A `Release` whose `value` has shape (len(levels),).
    """

    levels: Sequence[float]
    bounds: tuple[float, float]
    bins: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self.bounds)
        if not len(self.levels) or not all(0 < level < 1 for level in self.levels):
            raise ValueError(f"levels must lie between 0 and 1, one at least, got {list(self.levels)}")
        if self.bins < 2:
            raise ValueError(f"bins must be 2 or more, got {self.bins}")

    def _cells(self, *columns: Any) -> Cells:
        at = np.floor(self.bins * _position(columns[0], self.bounds)).astype(np.int64)
        return np.bincount(np.minimum(at, self.bins - 1), minlength=self.bins)

    def _release(self, noisy: Cells, simulated: bool) -> Release:
        level, below = np.array(self.levels)[:, None], np.arange(1, self.bins)  # bins before an inner edge
        total, edges = float(noisy.sum()), np.linspace(*self.bounds, self.bins + 1)
        known = total > 0  # else the noise is larger than the number of rows
        deviation, expected, reach = self.noise.error_of_sum(
            lambda k: (1 - level) ** k * below + level**k * (self.bins - below)
        )
        excess = np.cumsum(noisy)[:-1] - level * total  # of rows before an edge over the level's share
        outer = np.ones((len(level), 1), dtype=bool)  # between the outer edges lie all rows
        kept = np.hstack([outer, excess <= reach]) & np.hstack([excess >= -reach, outer])
        kept |= ~kept.any(1, keepdims=True) | (not known)
        least, most = edges[kept.argmax(1)], edges[self.bins - kept[:, ::-1].argmax(1)]
        before = np.append(0.0, np.cumsum(consistent(noisy, max(total, 0.0))))
        value = np.interp(level[:, 0] * total, before, edges) if known else np.full(len(level), edges.mean())
        nearest = np.clip(np.searchsorted(edges, value), 1, self.bins - 1)[:, None] - 1
        shares = [np.take_along_axis(error, nearest, 1)[:, 0] / max(total, 1.0) for error in (deviation, expected)]
        return Release(value, least, most, np.minimum(shares[0], 1), np.minimum(shares[1], 1), self.noise, simulated)


def _fieller(upper: Floats, total: Floats, noise: ReleaseNoise) -> tuple[Floats, Floats]:
    """The least and the largest share p for which (1 - p) upper - p (total - upper) can be explained by noise alone."""
    far = noise.error_of_sum(lambda k: np.ones(()))[2]  # no p has more
    start, end = (np.clip((upper + side * far) / total, 0, 1) for side in (-1, 1))
    p = np.linspace(start, end, STEPS + 1, axis=-1)
    _, _, reach = noise.error_of_sum(lambda k: (1 - p) ** k + p**k)
    kept = np.abs(upper[..., None] - p * total[..., None]) <= reach
    kept |= ~kept.any(-1, keepdims=True)
    first = np.maximum(kept.argmax(-1) - 1, 0)  # a step further out, since an end lies between two
    last = np.minimum(STEPS - kept[..., ::-1].argmax(-1) + 1, STEPS)
    least, most = (np.take_along_axis(p, end[..., None], -1)[..., 0] for end in (first, last))
    return np.maximum(least - 0.5 / PARTS, 0), np.minimum(most + 0.5 / PARTS, 1)  # rows' parts were rounded


def _position(values: Any, bounds: tuple[float, float]) -> Floats:
    """Positions (N,), in [0, 1], of numbers (N,) between the bounds."""
    low, high = bounds
    return (np.clip(as_floats(values), low, high) - low) / (high - low)


def _check_bounds(bounds: tuple[float, float]) -> None:
    if not -math.inf < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"bounds must be (low, high), finite, low below high, got {bounds}")
