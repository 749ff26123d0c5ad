"""The canary audit: rates to epsilon by definition, and that no bound passes the truth oftener than it says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom, norm

from aisec_lab.privacy.accounting import SampledGaussian, epsilon
from aisec_lab.privacy.auditing.canaries import (
    CanaryAudit,
    from_gaussian,
    from_rates,
    gaussian_delta,
    gaussian_epsilon,
)

CHANCE = 0.001  # of a test here to fail by bad luck with another seed


def seed(number):
    return torch.Generator().manual_seed(number)


RATES = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@given(RATES, RATES, st.sampled_from([0.0, 1e-5, 0.1]))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_epsilon_of_rates_is_the_least_that_allows_them(tpr, fpr, delta):
    """At it, both inequalities of the definition hold; below it one of them fails."""
    found = from_rates(np.array(tpr), np.array(fpr), delta).item()

    def allowed(value):
        slack = 1e-9
        return tpr <= math.exp(value) * fpr + delta + slack and 1 - fpr <= math.exp(value) * (1 - tpr) + delta + slack

    assert found >= 0
    if found == math.inf:
        assert not allowed(300.0)
    else:
        assert allowed(found + 1e-6)
    if 0.01 < found < math.inf:
        assert not allowed(found - 0.01)


def test_randomized_response_has_the_epsilon_that_it_has():
    """Its rates give it back, to audits of either outcome; Gaussian privacy, which it has not, would promise less."""
    right = 1 / (1 + np.exp(-np.array([0.1, 1.0, 4.0])))
    np.testing.assert_allclose(from_rates(right, 1 - right, 0.0), [0.1, 1, 4])
    np.testing.assert_allclose(from_rates(0.9 * right + 0.1, 0.9 * (1 - right), 0.1), [0.1, 1, 4])  # or in clear
    assert (from_gaussian(right, 1 - right, 1e-5) > [0.1, 1, 4]).all()


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.0])
def test_gaussian_privacy_is_that_of_the_gaussian_mechanism(mu):
    """Its delta is the integral of what P has more than e^epsilon Q, and its epsilon is the accountant's."""
    for value in (0.0, 0.5, 3.0):
        start = value / mu + mu / 2  # from there on P has more
        more = quad(lambda z, e=value: norm.pdf(z, mu) - math.exp(e) * norm.pdf(z), start, start + 15)[0]
        assert gaussian_delta(mu, value) == pytest.approx(more, rel=1e-6, abs=1e-13)
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(epsilon([SampledGaussian(1.0, 1 / mu, 1)], 1e-5), rel=2e-3)
    assert gaussian_delta(mu, gaussian_epsilon(mu, 1e-5)) == pytest.approx(1e-5, rel=1e-9)
    assert gaussian_epsilon(0.0, 1e-5) == 0


@pytest.mark.parametrize("runs", [100, 2000])
def test_runs_that_are_told_apart_always(runs):
    """Half of them choose, and the others certify log(p / (1 - p)) at p = (alpha / 2)^(1 / half)."""
    p = 0.025 ** (2 / runs)
    found = CanaryAudit(0.0)(torch.ones(runs), torch.zeros(runs), generator=seed(0))
    assert found.epsilon == pytest.approx(math.log(p / (1 - p)))
    assert (found.threshold, found.tpr_low, found.fpr_high) == (1.0, pytest.approx(p), pytest.approx(1 - p))


def answers(right):
    """Scores of randomized response that is right so often; ties and all."""
    return lambda runs, generator: (
        (torch.rand(runs, generator=generator) < right).double(),
        (torch.rand(runs, generator=generator) > right).double(),
    )


def shifted(mu):
    """Scores of a Gaussian mechanism."""
    return lambda runs, generator: (mu + torch.randn(runs, generator=generator), torch.randn(runs, generator=generator))


def in_clear(delta):
    """Tells that the canary was in with probability delta, and nothing else: (0, delta)-DP."""
    return lambda runs, generator: (
        (torch.rand(runs, generator=generator) < delta).double(),
        torch.zeros(runs),
    )


SCENES = {
    "randomized response": (answers(1 / (1 + math.exp(-1))), 1.0, CanaryAudit(0.0)),
    "in clear": (in_clear(0.1), 0.0, CanaryAudit(0.1)),
    "nothing": (shifted(0.0), 0.0, CanaryAudit(0.0)),
    "Gaussian, by rates": (shifted(1.0), gaussian_epsilon(1.0, 0.01).item(), CanaryAudit(0.01)),
    "Gaussian, by its law": (
        shifted(1.0),
        gaussian_epsilon(1.0, 1e-5).item(),
        CanaryAudit(1e-5, conversion=from_gaussian),
    ),
    "nothing, by the Gaussian's law": (shifted(0.0), 0.0, CanaryAudit(1e-5, conversion=from_gaussian)),
}


@pytest.mark.parametrize("name", SCENES)
def test_a_bound_hardly_ever_passes_the_truth(name):
    """In 300 audits of 200 runs and 300."""
    scene, truth, audit = SCENES[name]
    generator, passed = seed(1), 0
    for _ in range(300):
        inside, outside = scene(300, generator)
        passed += audit(inside[:200], outside, generator=generator).epsilon > truth
    assert passed <= binom.ppf(1 - CHANCE, 300, 0.05)


def test_a_threshold_chosen_on_the_same_runs_is_no_bound():
    """About scores that know nothing it claims something oftener than the confidence allows; one of other runs not."""
    generator, audit, greedy, honest = seed(2), CanaryAudit(0.0, confidence=0.8), 0, 0
    for _ in range(300):
        inside, outside = torch.randn(2, 300, generator=generator)
        both = [scores.double().numpy() for scores in (inside, outside)]
        greedy += audit._epsilons(*both, np.concatenate(both))[0].max() > 0
        honest += audit(inside, outside, generator=generator).epsilon > 0
    assert honest <= binom.ppf(1 - CHANCE, 300, 0.2) < greedy


def test_the_gaussian_law_certifies_most_of_a_gaussian_mechanism():
    """Where rates alone, at the same small delta, certify what a few thousand runs allow."""
    truth = gaussian_epsilon(2.0, 1e-5).item()
    inside, outside = shifted(2.0)(5000, seed(3))
    by_rates = CanaryAudit(1e-5)(inside, outside, generator=seed(4)).epsilon
    by_law = CanaryAudit(1e-5, conversion=from_gaussian)(inside, outside, generator=seed(4)).epsilon
    assert 0.2 * truth < by_rates < 0.6 * truth
    assert 0.85 * truth < by_law < truth


def test_both_outcomes_are_evidence():
    """Scores that are hardly ever high without the canary, or hardly ever low with it, tell equally much."""
    generator = seed(5)
    rare, none = in_clear(0.3)(1000, generator)
    high = CanaryAudit(0.0)(rare, none, generator=seed(6)).epsilon
    low = CanaryAudit(0.0)(-none, -rare, generator=seed(6)).epsilon
    assert high > 3
    assert low == pytest.approx(high, abs=0.5)


TWO = torch.zeros(2)
WRONG = {
    "delta must lie": lambda: CanaryAudit(1.0),
    "confidence": lambda: CanaryAudit(0.0, confidence=0.0),
    "give a positive delta": lambda: CanaryAudit(0.0, conversion=from_gaussian),
    "inside must be": lambda: CanaryAudit(0.0)(torch.zeros(1), TWO, generator=seed(0)),
    "outside must be": lambda: CanaryAudit(0.0)(TWO, torch.full((3,), math.nan), generator=seed(0)),
    "got \\(2, 2\\)": lambda: CanaryAudit(0.0)(torch.zeros(2, 2), TWO, generator=seed(0)),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_audit_is_refused(message):
    with pytest.raises(ValueError, match=message):
        WRONG[message]()
