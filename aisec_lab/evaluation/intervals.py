"""Intervals for rates."""

from scipy.special import betaincinv


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval for a binomial rate (Clopper & Pearson, 1934).

    Args:
        successes: from 0 to n.
        n: trials, at least 1.
        confidence: coverage that is guaranteed, in (0, 1).

    Returns:
        (low, high) in [0, 1]; covers the true rate with at least `confidence`, whatever the rate is.

    Raises:
        ValueError: counts that no experiment gives.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must lie in 0..n with n >= 1, got {successes} of {n}")
    alpha = (1 - confidence) / 2
    low = betaincinv(successes, n - successes + 1, alpha) if successes else 0.0
    high = betaincinv(successes + 1, n - successes, 1 - alpha) if successes < n else 1.0
    return float(low), float(high)
