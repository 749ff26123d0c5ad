"""Whether rows as a whole are still like those of the accepted version, column by column."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from aisec_lab.data.validation.reference import Reference

BINS = 100  # of a column of numbers
EXPECTED = 5  # times, at least, that a cell of chi-squared is expected in either version (Cochran, 1954)
FEW = 20  # different numbers: they are compared one by one, as words are


@dataclass(frozen=True)
class Shift:
    """How far a column has moved.

    Args:
        column: its name, or the label's.
        distance: between the distributions, 0 to 1: Kolmogorov-Smirnov of numbers, total variation of words.
        p: of the test that nothing has moved, corrected for the number of columns (Holm, 1979).
    """

    column: str
    distance: float
    p: float


class Drift:
    """Counts incoming values in bins of the accepted version's, and compares; memory does not grow with the rows.

    Kolmogorov-Smirnov is taken at the borders of the bins, which makes it no larger than it is: the test is
    conservative. Words and labels are compared by chi-squared, rare ones taken together.

    Args:
        reference: the accepted version.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference, layout = reference, reference.layout
        self._borders = [_borders(column) for column in reference.sample.T]
        self._few = np.array(
            [name in layout.words or len(b) < FEW for name, b in zip(layout.columns, self._borders, strict=True)]
        )
        self._before = [self._counts(column, place) for place, column in enumerate(reference.sample.T)]
        self._now = [np.zeros_like(counts) for counts in self._before]
        self._labels = np.zeros_like(reference.class_counts)

    def add(self, x: np.ndarray, y: np.ndarray, which: np.ndarray) -> None:
        """Rows (n, D) and their classes (n,), as far as `which` (n,) has them: nothing is missing in those."""
        for place, column in enumerate(x.T):
            self._now[place] += self._counts(column[which], place)
        self._labels += np.bincount(y[which], minlength=len(self._labels))

    def shifts(self) -> list[Shift]:
        """One for each column, and the last for the label."""
        found = [
            chi_squared(before, now) if few else _kolmogorov_smirnov(before, now)
            for before, now, few in zip(self._before, self._now, self._few, strict=True)
        ]
        found.append(chi_squared(self.reference.class_counts, self._labels))
        layout = self.reference.layout
        names = (*layout.columns, layout.label)
        corrected = holm(np.array([p for _, p in found]))
        return [Shift(n, float(d), float(p)) for n, (d, _), p in zip(names, found, corrected, strict=True)]

    def _counts(self, column: np.ndarray, place: int) -> np.ndarray:
        """Values at each border, or at most that and more than the one below; the last bin is for the rest."""
        borders = self._borders[place]
        where = np.searchsorted(borders, column)
        if self._few[place]:
            exact = np.isclose(borders[np.minimum(where, len(borders) - 1)], column)
            where = np.where(exact, where, len(borders))
        return np.bincount(where, minlength=len(borders) + 1)


def holm(p: np.ndarray) -> np.ndarray:
    """The p-values (m,) of m tests, corrected so that all claims at a level hold together (Holm, 1979)."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def _borders(column: np.ndarray) -> np.ndarray:
    column = column[~np.isnan(column)]  # an empty cell, where it may be, is counted in the last bin
    values = np.unique(column)
    if not len(values):
        return np.array([np.inf])
    if len(values) < FEW:
        return values
    return np.unique(np.quantile(column, np.linspace(0, 1, BINS + 1), method="inverted_cdf"))


def _kolmogorov_smirnov(before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    n, m = before.sum(), now.sum()
    if not n or not m:
        return 0.0, 1.0
    distance = float(np.abs(np.cumsum(before) / n - np.cumsum(now) / m).max())
    return distance, float(stats.kstwobign.sf(distance * np.sqrt(n * m / (n + m))))


def chi_squared(before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """How far the distribution of words, counts (C,), has changed, and the p-value of "it has not".

    Args:
        before, now: of the same words, in two files.

    Returns:
        The total variation, 0 to 1, and the p-value of chi-squared, rare words taken together; 1 where nothing is left
        to compare.
    """
    n, m = before.sum(), now.sum()
    table = np.stack([before, now])[:, before + now > 0]
    if not n or not m:
        return 0.0, 1.0
    pooled = _pooled(table)
    p = stats.chi2_contingency(pooled, correction=False).pvalue if pooled.shape[1] > 1 else 1.0
    return float(np.abs(before / n - now / m).sum() / 2), float(p)


def _pooled(table: np.ndarray) -> np.ndarray:
    """Two rows of counts (2, C), rare cells taken together: else chi-squared is far too sure.

    From the rarest up, cells come together until each is expected `EXPECTED` times or more in the smaller row.
    """
    table = table[:, np.argsort(table.sum(0), kind="stable")]
    expected = table.sum(0) * table.sum(1).min() / table.sum()
    groups, size = np.zeros(len(expected), dtype=int), 0.0
    for place, more in enumerate(expected[:-1]):
        size += more
        groups[place + 1] = groups[place] + (size >= EXPECTED)
        size *= size < EXPECTED
    if size + expected[-1] < EXPECTED and groups[-1]:  # the last group alone is too small
        groups[groups == groups[-1]] -= 1
    return np.stack([np.bincount(groups, weights=row) for row in table])
