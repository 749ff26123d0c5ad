"""Clopper-Pearson intervals."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from aisec_lab.core import clopper_pearson
from aisec_lab.core.intervals import bounded_mean
from aisec_lab.evaluation import rate


@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95, 0.99])
)
def test_it_is_the_exact_interval_of_scipy(counts: tuple[int, int], confidence: float) -> None:
    """For any counts, the ends included."""
    expected = binomtest(*counts).proportion_ci(confidence, method="exact")
    assert clopper_pearson(*counts, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 7, 50, 1000])
def test_it_covers_every_rate_as_often_as_it_says(n: int, confidence: float) -> None:
    """Summed over all outcomes, weighed by their probabilities, at rates near 0 and 1 too: at least as often as it
    says, and for some rate hardly more."""
    k = np.arange(n + 1)
    low, high = np.array([clopper_pearson(each, n, confidence) for each in k.tolist()]).T
    near, some = np.logspace(-6, -1, 20), -(-n // 50)  # of the intervals: coverage falls where one ends
    inner = [np.linspace(0, 1, 50), near, 1 - near, low[1::some] - 1e-13, high[:-1:some] + 1e-13]
    rates = np.concatenate([[0, 1], *inner])[:, None]
    coverage = (binom.pmf(k, n, rates) * ((low <= rates) & (rates <= high))).sum(1)
    assert coverage.min() >= confidence - 1e-12
    assert coverage.min() < (1 + confidence) / 2 + 0.005


def uneven(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Nearly all at 0, the others far away: no normal law holds for their mean."""
    return (rng.random(shape) < 0.02) * rng.beta(0.5, 0.1, shape)


@pytest.mark.parametrize("confidence", [0.9, 0.99])
@pytest.mark.parametrize("n", [1, 5, 300])
def test_a_mean_is_covered_whatever_the_distribution(n: int, confidence: float) -> None:
    """Of rare large values, of ties, of nothing but one end; 300 experiments each."""
    rng = np.random.default_rng(0)
    draws: dict[float, Callable[[tuple[int, ...]], np.ndarray]] = {
        0.02 * 0.5 / 0.6: lambda shape: uneven(rng, shape),
        0.5: lambda shape: rng.integers(0, 2, shape),
        0.3: lambda shape: np.full(shape, 0.3),
        0.0: np.zeros,
        1.0: np.ones,
    }
    for mean, draw in draws.items():
        ends = np.array([bounded_mean(values, 0, 1, confidence) for values in draw((300, n))])
        missed = int(((mean < ends[:, 0] - 1e-12) | (mean > ends[:, 1] + 1e-12)).sum())
        assert missed <= binom.ppf(0.9999, 300, 1 - confidence)


def test_no_success_still_says_something() -> None:
    """Zero of 50 proves only "below 7.2 %" (two-sided), not zero."""
    low, high = clopper_pearson(0, 50)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 50))


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0), (1, 0)])
def test_counts_that_no_experiment_gives_are_refused(successes: int, n: int) -> None:
    """With what was given."""
    with pytest.raises(ValueError, match=rf"must lie in 0\.\.n with n >= 1, got {successes} of {n}"):
        clopper_pearson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, -0.5, float("nan")])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    """95 is not 95 %."""
    for attempt in (lambda: clopper_pearson(3, 10, confidence), lambda: bounded_mean([0.5], 0, 1, confidence)):
        with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\), got"):
            attempt()


@pytest.mark.parametrize("values", [[0.5, float("nan")], [float("nan")], [], [1.5], [-0.5, 0.5]])
def test_a_mean_of_what_is_not_within_the_bounds_is_refused(values: list[float]) -> None:
    """NaN neither."""
    with pytest.raises(ValueError, match="there must be values, all within"):
        bounded_mean(values, 0, 1)


def test_a_rate_is_a_row_of_the_table() -> None:
    """Value, interval and n from the counts; the rest as it is given."""
    row = rate("robust_accuracy", 30, 40, defense="trades", seed=1)
    low, high = clopper_pearson(30, 40)
    assert row == {
        "metric": "robust_accuracy", "value": 0.75, "low": low, "high": high, "n": 40, "defense": "trades", "seed": 1,
    }  # fmt: skip
