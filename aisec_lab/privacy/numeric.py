"""Means and quantiles of a private column of numbers, from counts with noise."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from aisec_lab.privacy.columns import check_categories, numbers, places
from aisec_lab.privacy.noise import Cells, Floats, ReleaseNoise
from aisec_lab.privacy.releases import Release, Statistic, consistent

PARTS = 2**16  # that a row is split into between the two bounds of a mean
STEPS = 200  # in which the ends of a mean's interval are sought


@dataclass(frozen=True)
class Mean(Statistic):
    """The mean of a column whose values are clipped to bounds. The value has shape ().

    A row is shared out, in `PARTS` parts, to the counts of the two bounds, by how near it lies to either. They move by
    one row's parts together, so that the number of rows, which is private too, costs nothing beside the sum. The
    interval is Fieller's (1954): all means that the two noisy counts do not reject, and half a part on either side,
    since a row's parts are whole.

    Args:
        bounds: (low, high), public.
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
        known = total > 0  # else the noise has drowned the rows
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
    """The mean of a column in each group of another: `Mean` of `(values, groups)`, since a row is of one group only.

    Args:
        categories: all groups that there can be; the value has their order. Of a group with no rows, nothing is known:
            its interval reaches from bound to bound, or nearly.
    """

    categories: Sequence[Hashable]
    columns: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_categories(self.categories)

    def _cells(self, *columns: Any) -> Cells:
        upper = np.rint(PARTS * _position(columns[0], self.bounds)).astype(np.int64)
        cells = np.zeros((len(self.categories), 2), dtype=np.int64)
        np.add.at(cells, places(columns[1], self.categories), np.stack([PARTS - upper, upper], 1))
        return cells


@dataclass(frozen=True)
class Quantiles(Statistic):
    """Quantiles of a column whose values are clipped to bounds, all from one histogram with noise.

    The interval of a level holds the bins that it does not reject: those before which not clearly more than this share
    of the rows lie, and up to whose end not clearly less.

    Args:
        levels: in (0, 1), in any order; the value has shape (len(levels),).
        bounds: (low, high), public.
        bins: of one width, between the bounds; inside a bin the value is interpolated.
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
        known = total > 0  # else the noise has drowned the rows
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
    """The least and the largest share p for which (1 - p) upper - p (total - upper) may be noise alone."""
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
    """Where numbers (N,) lie between the bounds, in [0, 1]."""
    low, high = bounds
    return (np.clip(numbers(values), low, high) - low) / (high - low)


def _check_bounds(bounds: tuple[float, float]) -> None:
    if not -math.inf < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"bounds must be (low, high), finite, low below high, got {bounds}")
