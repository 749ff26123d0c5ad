"""Exact bounds and tests for the binomial distribution."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtrc, betainc, betaincinv


def lower_bound(successes: ArrayLike, n: int, alpha: float) -> np.ndarray:
    """The exact one-sided lower bound on a rate (Clopper & Pearson, 1934).

    Args:
        successes: counts from 0 to n, of any shape.
        n: trials, at least 1.
        alpha: in (0, 1); the largest probability that the bound lies above the true rate.

    Returns:
        Bounds in [0, 1], shape of `successes`, float64.

    Raises:
        ValueError: counts outside 0..n, or alpha outside (0, 1).
    """
    k = _counts(successes, n, 1)
    _check_alpha(alpha)
    return np.where(k > 0, betaincinv(np.maximum(k, 1), n - np.maximum(k, 1) + 1, alpha), 0.0)


def upper_bound(successes: ArrayLike, n: int, alpha: float) -> np.ndarray:
    """The exact one-sided upper bound on a rate (Clopper & Pearson, 1934).

    Args:
        successes: counts from 0 to n, of any shape.
        n: trials, at least 1.
        alpha: in (0, 1); the largest probability that the bound lies below the true rate.

    Returns:
        Bounds in [0, 1], shape of `successes`, float64.

    Raises:
        ValueError: counts outside 0..n, or alpha outside (0, 1).
    """
    k = _counts(successes, n, 1)
    _check_alpha(alpha)
    return np.where(k < n, betaincinv(np.minimum(k, n - 1) + 1, n - np.minimum(k, n - 1), 1 - alpha), 1.0)


def fair_coin(heads: ArrayLike, tosses: ArrayLike) -> np.ndarray:
    """The p-value of the exact two-sided binomial test with rate 1/2.

    Args:
        heads: counts from 0 to `tosses`, of any shape.
        tosses: numbers of tosses, of the same shape, or one that broadcasts.

    Returns:
        P-values in [0, 1], float64.

    Raises:
        ValueError: more heads than tosses, or a negative count.
    """
    heads, n = _counts(heads, tosses, 0), np.asarray(tosses, dtype=np.float64)
    more = np.maximum(heads, n - heads)
    above = betainc(np.maximum(more, 1), n - np.maximum(more, 1) + 1, 0.5)  # P(X >= more)
    return np.where(2 * more == n, 1.0, np.minimum(1.0, 2 * above))


def tail(successes: int, n: int, rate: float) -> float:
    """The probability P[X >= successes] of a binomial variable X.

    Args:
        successes: from 0 to n.
        n: trials, at least 0.
        rate: probability of success of each trial, in [0, 1].

    Returns:
        The probability, in [0, 1].

    Raises:
        ValueError: a count outside 0..n, or a rate outside [0, 1].
    """
    _counts(successes, n, 0)
    if not 0 <= rate <= 1:
        raise ValueError(f"a rate lies in [0, 1], got {rate}")
    return float(bdtrc(successes - 1, n, rate)) if successes > 0 else 1.0


def _counts(successes: ArrayLike, n: ArrayLike, least: int) -> np.ndarray:
    """The counts as float64; ValueError for counts outside 0..n, or n below `least`."""
    k, trials = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    if not ((trials >= least) & (trials < np.inf) & (k >= 0) & (k <= trials)).all():
        raise ValueError(f"counts must lie in 0..n with n >= {least}, got {successes!r} of {n!r}")
    return k


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha, how often a bound may be wrong, must lie in (0, 1), got {alpha}")
