"""Exact binomial arithmetic against its definitions."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from aisec_lab.core.binomial import fair_coin, lower_bound, tail, upper_bound


@pytest.mark.parametrize("n", [1, 2, 17, 10_000])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001])
def test_bounds_are_the_rates_at_which_the_count_is_just_not_surprising(n, alpha):
    """P(X >= k) at the lower bound and P(X <= k) at the upper bound are alpha."""
    k = np.unique(np.linspace(0, n, 50).astype(int))
    low, high = lower_bound(k, n, alpha), upper_bound(k, n, alpha)
    np.testing.assert_allclose(binom.sf(k[1:] - 1, n, low[1:]), alpha, rtol=1e-8)
    np.testing.assert_allclose(binom.cdf(k[:-1], n, high[:-1]), alpha, rtol=1e-8)
    assert (low[0], high[-1]) == (0, 1)
    assert lower_bound(n, n, alpha) == pytest.approx(alpha ** (1 / n), rel=1e-14)


def test_coin_and_tail_are_scipys():
    """All counts of a few numbers of tosses, none among them."""
    for n in (1, 6, 7, 100):
        expected = [binomtest(heads, n, 0.5).pvalue for heads in range(n + 1)]
        np.testing.assert_allclose(fair_coin(np.arange(n + 1), np.full(n + 1, n)), expected, rtol=1e-10)
        assert [tail(k, n, 0.2) for k in range(n + 1)] == pytest.approx(binom.sf(np.arange(n + 1) - 1, n, 0.2))
    assert fair_coin(0, 0) == 1
    assert (tail(1, 50, 0.0), tail(0, 50, 0.0)) == (0, 1)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: lower_bound(3, 10, 95), r"alpha.*\(0, 1\), got 95"),
        (lambda: upper_bound(3, 10, 0.0), r"alpha.*\(0, 1\), got 0.0"),
        (lambda: upper_bound(3, 10, float("nan")), "got nan"),
        (lambda: lower_bound([3, 11], 10, 0.05), r"0\.\.n with n >= 1, got \[3, 11\] of 10"),
        (lambda: lower_bound(-1, 10, 0.05), "got -1 of 10"),
        (lambda: upper_bound(float("nan"), 10, 0.05), "got nan of 10"),
        (lambda: upper_bound(0, 0, 0.05), "n >= 1, got 0 of 0"),
        (lambda: fair_coin([1, 3], [2, 2]), "n >= 0"),
        (lambda: tail(3, 2, 0.5), "got 3 of 2"),
        (lambda: tail(1, 2, float("nan")), r"\[0, 1\], got nan"),
        (lambda: tail(1, 2, 1.5), r"\[0, 1\], got 1.5"),
    ],
)
def test_what_no_experiment_gives_is_refused(ask, message):
    """Each of these was NaN, or a number that means nothing."""
    with pytest.raises(ValueError, match=message):
        ask()
