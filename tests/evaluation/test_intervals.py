"""Clopper-Pearson intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from aisec_lab.evaluation import clopper_pearson, rate
from aisec_lab.evaluation.intervals import bounded_mean


@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95, 0.99])
)
def test_it_is_the_exact_interval_of_scipy(counts: tuple[int, int], confidence: float) -> None:
    """For any counts, the ends included."""
    expected = binomtest(*counts).proportion_ci(confidence, method="exact")
    assert clopper_pearson(*counts, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("n", [1, 7, 50])
def test_it_covers_every_rate_as_often_as_it_says(n: int) -> None:
    """Summed over all outcomes, weighed by their probabilities: at least 95 %, and for some rate hardly more."""
    intervals = [clopper_pearson(k, n) for k in range(n + 1)]
    coverage = [
        sum(binom.pmf(k, n, p) for k, (low, high) in enumerate(intervals) if low <= p <= high)
        for p in (step / 1000 for step in range(1001))
    ]
    assert min(coverage) >= 0.95 - 1e-12
    assert min(coverage) < 0.98


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
