"""Confidence intervals for rates and for means."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import bdtr, gammaincinv

from aisec_lab.core.binomial import lower_bound, upper_bound


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval for a binomial rate (Clopper & Pearson, 1934).

    Args:
        successes: from 0 to n.
        n: trials, at least 1.
        confidence: guaranteed coverage, in (0, 1).

    Returns:
        (low, high) in [0, 1]; it covers the true rate with at least this confidence, whatever the rate is.

    Raises:
        ValueError: successes outside 0..n, or confidence outside (0, 1).
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must lie in 0..n with n >= 1, got {successes} of {n}")
    _check(confidence)
    alpha = (1 - confidence) / 2
    return float(lower_bound(successes, n, alpha)), float(upper_bound(successes, n, alpha))


def bounded_mean(
    values: Sequence[float], least: float, largest: float, confidence: float = 0.95
) -> tuple[float, float]:
    """An interval for the mean of a bounded variable of any distribution (Anderson, 1969).

    The Dvoretzky-Kiefer-Wolfowitz band (Massart, 1990) contains the distribution function. The ends of the interval are
    the means of the two distributions at the edges of the band.

    Args:
        values: independent draws, at least one.
        least, largest: finite bounds of the variable.
        confidence: guaranteed coverage, in (0, 1).

    Returns:
        (low, high) within the bounds; it covers the true mean with at least this confidence.

    Raises:
        ValueError: no value, NaN, a value outside the bounds, bounds that are not finite or not in order, or confidence
            outside (0, 1).
    """
    _check(confidence)
    if not -math.inf < least <= largest < math.inf:
        raise ValueError(f"a bounded variable has finite bounds, the least first, got {least} and {largest}")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not len(ordered) or not (ordered[0] >= least and ordered[-1] <= largest):  # NaN is sorted to the end
        raise ValueError(f"there must be values, all within [{least}, {largest}], got {list(values)}")
    band = math.sqrt(math.log(2 / (1 - confidence)) / (2 * len(ordered)))
    knots = np.concatenate([[least], ordered, [largest]])
    share = np.arange(len(ordered) + 1) / len(ordered)  # of the values at or below, between one knot and the next
    ends = (np.minimum(share + band, 1), np.maximum(share - band, 0))
    low, high = (float(largest - (np.diff(knots) * end).sum()) for end in ends)
    return low, high


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval for the expectation of a count that is distributed as Poisson's (Garwood, 1936).

    Args:
        count: at least 0.
        confidence: guaranteed coverage, in (0, 1).

    Returns:
        (low, high), at least 0; it covers the expected count with at least this confidence, whatever that is.

    Raises:
        ValueError: a negative count, or confidence outside (0, 1).
    """
    if count < 0:
        raise ValueError(f"a count is at least 0, got {count}")
    _check(confidence)
    alpha = (1 - confidence) / 2
    return float(gammaincinv(count, alpha)) if count else 0.0, float(gammaincinv(count + 1, 1 - alpha))


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """An interval for the median of any distribution, by order statistics (Thompson, 1936).

    Args:
        values: independent draws, at least one; infinite ones are accepted.
        confidence: guaranteed coverage, in (0, 1).

    Returns:
        (low, high), two of the values; they cover the median with at least this confidence, or are infinite where the
        values are too few for that: six are needed for 95 %.

    Raises:
        ValueError: no value, NaN, or confidence outside (0, 1).
    """
    _check(confidence)
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not len(ordered) or np.isnan(ordered[-1]):
        raise ValueError(f"there must be values, and none NaN, got {list(values)}")
    below = bdtr(np.arange(len(ordered)), len(ordered), 0.5)  # P(at most k values lie below the median)
    cut = int((below <= (1 - confidence) / 2).sum())  # values that are left out at each end, and the one after them
    if not cut:
        return -math.inf, math.inf
    return float(ordered[cut - 1]), float(ordered[-cut])


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}: 0.95 is usual")
