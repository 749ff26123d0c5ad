"""What no rule of one column finds in a row: values and combinations unlike those of the accepted version."""

import warnings

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.covariance import ledoit_wolf

from aisec_lab.data.validation.reference import Reference

NORMAL = 1.4826  # median absolute deviation to standard deviation
FOLDS = 2
LEAST = 2 * FOLDS  # accepted rows: a spread takes two in each fold


class Extremes:
    """Values far from all that were accepted, by the robust z-score (Iglewicz & Hoaglin, 1993).

    A value is extreme if it is outside the range of the accepted version, and further from its median than
    `limit` times its median absolute deviation, scaled to the standard deviation of a normal. A column of words has
    none, nor one of which more than half of the values are equal, nor pixels.

    Args:
        reference: the accepted version.
        limit: of the score.
    """

    def __init__(self, reference: Reference, limit: float) -> None:
        layout, sample = reference.layout, reference.sample
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column that is all empty
            median = np.nanmedian(sample, 0)
            scale = NORMAL * np.nanmedian(np.abs(sample - median), 0)
        number = [name not in layout.words and not layout.images for name in layout.columns]
        reach = np.where((scale > 0) & number, limit * scale, np.inf)
        self.low, self.high = np.minimum(reference.low, median - reach), np.maximum(reference.high, median + reach)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which rows of (n, D) have an extreme value, and the first column with one; NaN is none."""
        extreme = (x < self.low) | (x > self.high)
        return extreme.any(1), extreme.argmax(1)


class Outliers:
    """Rows whose columns do not go together, by their Mahalanobis distance to the accepted version.

    The covariance is shrunk (Ledoit & Wolf, 2004), so that there may be more columns than rows. The limit is a quantile
    of the distances of accepted rows to the other half of them: of rows like those, at most `share` is expected above.

    Args:
        reference: the accepted version; of words, their places are taken for numbers.
        share: of honest rows that may be called outliers.

    Raises:
        ValueError: fewer accepted rows than LEAST.
    """

    def __init__(self, reference: Reference, share: float) -> None:
        sample = reference.whole
        if len(sample) < LEAST:
            raise ValueError(f"outliers are measured against at least {LEAST} accepted rows, got {len(sample)}")
        distances = []
        for fold in range(FOLDS):
            held = np.arange(len(sample)) % FOLDS == fold
            self._fit(sample[~held])
            distances.append(self.distance(sample[held]))
        ordered = np.sort(np.concatenate(distances))
        rank = int(np.ceil((len(ordered) + 1) * (1 - share))) - 1  # of split conformal prediction
        self.limit = ordered[rank] if rank < len(ordered) else np.inf
        self._fit(sample)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Which rows of (n, D) are outliers; one with a cell that is missing or infinite is none."""
        whole = np.isfinite(x).all(1)
        found = np.zeros(len(x), bool)
        found[whole] = self.distance(x if whole.all() else x[whole]) > self.limit
        return found

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Of rows (n, D), squared."""
        return np.square((x - self._mean) @ self._whiten).sum(1)

    def _fit(self, x: np.ndarray) -> None:
        self._mean = x.mean(0)
        spread = x.std(0)
        scale = np.where(spread > 0, spread, spread.max() or 1.0)  # a constant column: a change is a change
        covariance, _ = ledoit_wolf((x - self._mean) / scale, assume_centered=True)
        ridge = 1e-9 * (np.trace(covariance) / len(covariance) or 1.0)  # where columns repeat each other
        root = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
        whiten = solve_triangular(root, np.eye(len(root)), lower=True).T
        self._whiten = whiten / scale[:, None]
