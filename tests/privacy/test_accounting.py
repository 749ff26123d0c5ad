"""Accounting, held against direct integration, closed forms and a second library."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from aisec_lab.privacy import composition
from aisec_lab.privacy.accounting import (
    Mechanism,
    PrivacyStatement,
    SampledGaussian,
    check_target,
    delta_profile,
    epsilon,
    epsilons,
    noise_multiplier,
)
from benchmarks.accounting import Training, trainings
from tests.privacy.quadrature import delta_of_few, delta_of_many, delta_of_one

EPSILONS = [-1.0, -0.1, 0.0, 0.5, 2.0]


def holds(found: NDArray[np.float64], exact: Sequence[float], above: float) -> None:
    """An upper bound, up to the rounding of the integral, and a tight one."""
    assert (found >= np.array(exact) * (1 - 1e-8)).all(), found / exact - 1
    assert (found <= np.array(exact) * (1 + above)).all(), found / exact - 1


@pytest.mark.parametrize("step", [SampledGaussian(0.1, 1.0, 1), SampledGaussian(0.5, 0.6, 1), SampledGaussian(1, 2, 1)])
def test_one_step_is_the_integral_of_its_privacy_loss(step: SampledGaussian) -> None:
    """Below zero the row's being there hides in its absence, above zero the other way round: both directions count."""
    holds(delta_profile([step], EPSILONS), [delta_of_one(step, each) for each in EPSILONS], above=1e-8)


@pytest.mark.parametrize(
    "steps",
    [
        [SampledGaussian(0.1, 1.0, 1), SampledGaussian(0.1, 1.0, 1)],
        [SampledGaussian(0.3, 1.5, 1), SampledGaussian(0.1, 1.0, 1)],
        [SampledGaussian(0.1, 1.0, 1)] * 3,
    ],
    ids=["twice", "two kinds", "three times"],
)
def test_a_few_steps_are_the_nested_integral(steps: list[SampledGaussian]) -> None:
    """Of equal and of different ones; the epsilon of that delta is the one that we began with."""
    exact = [delta_of_few(steps, each) for each in EPSILONS]
    holds(delta_profile(steps, EPSILONS), exact, above=1e-6)
    assert epsilons(steps, exact[3], accountants=["pld"])["pld"] == pytest.approx(EPSILONS[3], rel=1e-5)


@pytest.mark.parametrize("step", [SampledGaussian(0.1, 1.0, 50), SampledGaussian(0.02, 1.0, 1000)])
def test_many_steps_are_the_inverted_characteristic_function(step: SampledGaussian) -> None:
    """As they are in a training."""
    points = [-1.0, 0.0, 1.0, 3.0]
    holds(delta_profile([step], points), [delta_of_many(step, each) for each in points], above=3e-5)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (5.0, 40)])
def test_without_sampling_it_is_the_gaussian_mechanism(sigma: float, steps: int) -> None:
    """Balle & Wang (2018, arXiv:1805.06530, eq. 6); steps add up to one of a smaller noise."""
    points, narrow = np.array([0.0, 1.0, 4.0]), sigma / math.sqrt(steps)
    exact = norm.cdf(0.5 / narrow - points * narrow) - np.exp(points) * norm.cdf(-0.5 / narrow - points * narrow)
    holds(delta_profile([SampledGaussian(1, sigma, steps)], points), exact, above=1e-5)


def exact_epsilon(mu: float, delta: float) -> float:
    """Of a Gaussian mechanism whose sensitivity is `mu` of its standard deviations (eq. 6 as above)."""

    def excess(epsilon: float) -> float:
        beyond = math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu))
        return float(norm.cdf(mu / 2 - epsilon / mu) - beyond) - delta

    return float(brentq(excess, 0, 100, xtol=1e-12))


class Long(NamedTuple):
    """Steps that are together one Gaussian mechanism of sensitivity `mu`, and by how much "pld" may be above it."""

    mu: float
    q: float
    steps: int
    delta: float
    above: float


@pytest.mark.parametrize(
    "case",
    [
        Long(1.0, 1, 4096, 1e-12, 0.05),  # here dp-accounting alone is below
        Long(1.0, 1, 4097, 1e-5, 1e-5),
        Long(0.1, 1, 100_000, 1e-5, 0.002),
        Long(3.0, 1, 1_000_000, 1e-7, 1e-3),
        Long(1.0, 1, 10_000_000, 1e-5, 0.005),
        Long(0.003, 1, 10_000_000, 1e-5, 0.02),
        Long(0.1, 0.01, 10_000_000, 1e-5, 0.005),  # at much noise a sample of the rows is a smaller sensitivity
        Long(1.0, 1, 10**12, 1e-5, math.inf),  # no transform can tell
        Long(0.1, 0.01, 10**16, 1e-5, math.inf),  # dp-accounting alone says 0, by Rényi moments
    ],
    ids=str,
)
def test_any_number_of_steps_is_bounded_from_above_in_seconds(case: Long) -> None:
    """By each proof; and not far from above where the transforms can tell."""
    exact = exact_epsilon(case.mu, case.delta)
    step = SampledGaussian(case.q, case.q * math.sqrt(case.steps) / case.mu, case.steps)
    found = epsilons([step], case.delta)
    assert min(found.values()) >= exact * (1 - 1e-9), (found, exact)
    assert math.isfinite(min(found.values()))
    assert found["pld"] <= exact * (1 + case.above), (found, exact)


@pytest.mark.parametrize("steps", [4097, 64**2 * 3 + 64 * 5, 100_000])
def test_powers_are_what_one_transform_gives(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits of zero and others; both directions of a sampled step, and a promise of others beside it."""
    mechanisms = [SampledGaussian(0.1, 50.0, steps), PrivacyStatement(0.5, 1e-7)]
    points = np.array([0.0, 0.5, 1.5])
    monkeypatch.setattr(composition, "LOSS", 1)  # the same grid
    powers = delta_profile(mechanisms, points)
    monkeypatch.setattr(composition, "AT_ONCE", steps)
    np.testing.assert_allclose(powers, delta_profile(mechanisms, points), rtol=1e-7, atol=1e-12)


def test_memory_grows_with_the_logarithm_of_the_steps() -> None:
    """A window is as wide as the losses and not as the steps: a rare loss, and a vast sum of losses, too."""
    for q, sigma, steps in (
        (0.1, 50.0, 10_000_000),
        (0.001, 1.0, 1_000_000),
        (1.0, 1.0, 100_000),
        (1.0, 0.01, 100_000),
    ):
        losses = composition.pld([SampledGaussian(q, sigma, steps)], [], composition.COARSE)
        assert losses._pmf_remove.size < 2e6  # numbers of 8 bytes


@pytest.mark.parametrize(
    ("step", "low", "high"),
    [
        (SampledGaussian(0.1, 1e-7, 1), math.inf, math.inf),
        (SampledGaussian(0.1, 1e-160, 3), math.inf, math.inf),  # dp-accounting alone says 0
        (SampledGaussian(1, 0.01, 100_000), 1e5, 1e9),
        (SampledGaussian(1, 1e200, 1), 0, 0.1),
        (SampledGaussian(0.1, 1.0, 10**34), 1e20, math.inf),
        (SampledGaussian(1e-300, 1.0, 5000), 0, 0.1),
    ],
    ids=str,
)
def test_what_float64_cannot_hold_is_still_an_upper_bound(step: SampledGaussian, low: float, high: float) -> None:
    """Hardly any noise or step, and too much of either."""
    assert low <= epsilon([step], 1e-5) <= high


def test_promises_of_others_compose_as_the_worst_that_keep_to_them() -> None:
    """Kairouz, Oh & Viswanath (2015, arXiv:1311.0776, theorem 3.3, at delta 0); adding them up says far more."""
    count, each = 50, 0.1
    terms = [
        math.comb(count, few) * (math.exp((count - few) * each) - math.exp((count - 2 * 10 + few) * each))
        for few in range(10)
    ]
    exact = math.fsum(terms) / (1 + math.exp(each)) ** count
    promises = [PrivacyStatement(each)] * count
    assert delta_profile(promises, [(count - 2 * 10) * each])[0] == pytest.approx(exact, rel=1e-6)
    found = epsilons(promises, exact)
    assert found == {"rdp": pytest.approx(5.0), "pld": pytest.approx(3.0, abs=1e-4)}


class Sum(NamedTuple):
    """Mechanisms, a delta, and the epsilon that basic composition gives."""

    mechanisms: list[Mechanism]
    delta: float
    epsilon: float


RUN = SampledGaussian(1, 5.0, 10)


@pytest.mark.parametrize(
    "case",
    [
        Sum([], 1e-5, 0),
        Sum([SampledGaussian(0.5, 1.0, 0)], 1e-5, 0),
        Sum([SampledGaussian(0.5, 0.0, 0)], 1e-5, 0),
        Sum([SampledGaussian(0.5, 0.0, 1)], 1e-5, math.inf),
        Sum([PrivacyStatement(1.0)], 1e-5, 1),
        Sum([PrivacyStatement(0.5, 1e-6)] * 10, 1e-5, 5),
        Sum([PrivacyStatement(0.5, 1e-6)] * 11, 1e-5, math.inf),
        Sum([RUN, PrivacyStatement(1.0, 4e-6)], 1e-5, 1 + epsilons([RUN], 6e-6)["rdp"]),
        Sum([RUN, PrivacyStatement(1.0, 1e-5)], 1e-5, math.inf),
    ],
    ids=str,
)
def test_what_costs_nothing_what_promises_nothing_and_what_adds(case: Sum) -> None:
    """What is left of delta after the promises of others is what the rest may spend; together they never cost more."""
    assert epsilons(case.mechanisms, case.delta)["rdp"] == pytest.approx(case.epsilon)
    assert epsilon(case.mechanisms, case.delta) <= case.epsilon


def test_a_run_without_noise_is_seen_through_at_every_epsilon() -> None:
    """Whatever stands beside it."""
    assert (delta_profile([RUN, SampledGaussian(0.5, 0.0, 1)], EPSILONS) == 1).all()


def test_a_run_in_two_parts_costs_what_it_costs_in_one() -> None:
    """Exactly, and in any order."""
    parts = [SampledGaussian(0.1, 2.0, 20), SampledGaussian(0.2, 3.0, 50), SampledGaussian(0.1, 2.0, 30)]
    whole = [SampledGaussian(0.1, 2.0, 50), SampledGaussian(0.2, 3.0, 50)]
    assert epsilons(parts, 1e-5) == epsilons(whole, 1e-5)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    st.floats(-7, 0).map(lambda power: 10**power),
    st.floats(1, 20),
    st.integers(1, 1000),
    st.floats(-10, -2).map(lambda power: 10**power),
)
def test_renyi_is_never_below(q: float, sigma: float, steps: int, delta: float) -> None:
    """It is the looser proof."""
    found = epsilons([SampledGaussian(q, sigma, steps)], delta)
    assert found["rdp"] >= found["pld"] - 1e-6
    assert epsilon([SampledGaussian(q, sigma, steps)], delta) == min(found.values())


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.02, 1.0, 2000), (0.1, 4.0, 300), (1.0, 8.0, 20)])
def test_renyi_is_opacus(q: float, sigma: float, steps: int) -> None:
    """Another implementation; its orders are nearly the same."""
    theirs = RDPAccountant()
    theirs.history = [(sigma, q, steps), (sigma + 1, q, steps)]
    ours = epsilons([SampledGaussian(q, sigma, steps), SampledGaussian(q, sigma + 1, steps)], 1e-5, accountants=["rdp"])
    assert ours["rdp"] == pytest.approx(theirs.get_epsilon(1e-5), rel=1e-9)


@pytest.mark.parametrize("training", [each for each in trainings() if each.target < 1][:4], ids=str)
def test_opacus_says_nearly_the_same(training: Training) -> None:
    """Within half a per cent; all fifty in benchmarks/accounting.json."""
    found = epsilons([training.mechanism()], training.delta, accountants=["prv", "pld"])
    assert found["prv"] == pytest.approx(found["pld"], rel=0.005)


class Target(NamedTuple):
    epsilon: float
    delta: float
    q: float
    steps: int


@pytest.mark.parametrize("case", [Target(2.7, 1e-5, 0.137, 300), Target(0.1, 1e-6, 0.01, 100), Target(8, 1e-5, 1, 40)])
def test_the_noise_keeps_to_its_target_and_little_less_does_not(case: Target) -> None:
    """One per cent less is too little."""
    sigma = noise_multiplier(*case)
    assert epsilon([SampledGaussian(case.q, sigma, case.steps)], case.delta) <= case.epsilon
    less = SampledGaussian(case.q, 0.99 * sigma, case.steps)
    assert epsilons([less], case.delta, accountants=["pld"])["pld"] > case.epsilon


def test_a_row_that_is_hardly_ever_seen_needs_no_noise_and_gets_a_little() -> None:
    """Its being seen at all is less likely than delta."""
    assert noise_multiplier(1.0, 1e-5, 1e-6, 1) == 0.1


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: SampledGaussian(0, 1, 1), "q must lie in"),
        (lambda: SampledGaussian(1.1, 1, 1), "q must lie in"),
        (lambda: SampledGaussian(math.nan, 1, 1), "q must lie in"),
        (lambda: SampledGaussian(0.1, -1, 1), "sigma must be"),
        (lambda: SampledGaussian(0.1, math.nan, 1), "sigma must be"),
        (lambda: SampledGaussian(0.1, 1, -1), "steps must be"),
        (lambda: SampledGaussian(0.1, 1, 1.5), "steps must be"),
        (lambda: PrivacyStatement(-0.1), "a statement has"),
        (lambda: PrivacyStatement(1, 1), "a statement has"),
        (lambda: epsilons([RUN], 0), "delta must lie"),
        (lambda: epsilons([RUN], 1e-13), "delta must lie"),
        (lambda: epsilons([RUN], 1e-5, accountants=["moments"]), "no accountant.*choose from"),
        (lambda: noise_multiplier(0, 1e-5, 0.1, 10), "epsilon > 0"),
        (lambda: noise_multiplier(math.inf, 1e-5, 0.1, 10), "finite epsilon"),
        (lambda: noise_multiplier(1, 1e-5, 0.1, 0), "at least one step"),
        (lambda: noise_multiplier(1e-9, 1e-12, 1, 10), "no noise"),
        (lambda: check_target(0, 1e-5, 100), "epsilon must be positive"),
        (lambda: check_target(-1, 1e-5, 100), "epsilon must be positive"),
        (lambda: check_target(math.nan, 1e-5, 100), "epsilon must be positive"),
        (lambda: check_target(1, 0.01, 100), "below 1/100 rows.*try 0.001"),
        (lambda: check_target(1, 0, 100), "delta must lie above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object], match: str) -> None:
    """In one line."""
    with pytest.raises(ValueError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_target_that_protects_is_accepted() -> None:
    """Up to, not at, one over the rows."""
    check_target(8, 0.0099, 100)
