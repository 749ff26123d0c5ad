"""The one-run audit: its arithmetic against the definition, and that it hardly ever claims more than there is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from aisec_lab.privacy.auditing.canaries import gaussian_epsilon
from aisec_lab.privacy.auditing.one_run import OneRunAudit, lower_bound, max_certifiable_epsilon, p_value, split_audit

CHANCE = 0.001  # of a test here to fail by bad luck with another seed


def seed(number):
    return torch.Generator().manual_seed(number)


def coins(canaries, generator):
    return torch.rand(canaries, generator=generator) < 0.5


@pytest.mark.parametrize(("canaries", "published"), [(1000, 5.8), (100, 3.5)])
def test_so_many_canaries_certify_no_more(canaries, published):
    """Perfect guesses give log(p / (1 - p)) at p = alpha^(1/m); a delta takes from it."""
    p = 0.05 ** (1 / canaries)
    assert max_certifiable_epsilon(canaries) == pytest.approx(math.log(p / (1 - p)), abs=1e-9)
    assert max_certifiable_epsilon(canaries) == pytest.approx(published, abs=0.02)
    assert max_certifiable_epsilon(canaries, 1e-4) < max_certifiable_epsilon(canaries) - 0.02
    assert max_certifiable_epsilon(canaries, confidence=0.99) < max_certifiable_epsilon(canaries)
    included = coins(canaries, seed(0))
    ins = int(included.sum())
    found = OneRunAudit(ins, canaries - ins)(included.double(), included)
    assert (found.epsilon, found.correct) == (max_certifiable_epsilon(canaries), canaries)


def written_out(correct, guesses, canaries, epsilon, delta):
    """Theorem 5.2 by its sums, one outcome of the binomial after another."""
    rate = math.exp(epsilon) / (1 + math.exp(epsilon))
    chances = [math.comb(guesses, k) * rate**k * (1 - rate) ** (guesses - k) for k in range(guesses + 1)]
    worst = 0.0
    for i in range(1, canaries + 1):
        worst = max(worst, sum(chances[max(correct - i, 0) : correct]) / i)
    return min(1.0, sum(chances[correct:]) + 2 * canaries * delta * worst)


@given(st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_p_value_is_the_theorems(data):
    """And the bound is where it is alpha: just below it the guesses are a surprise, just above they are not."""
    canaries = data.draw(st.integers(1, 60))
    guesses = data.draw(st.integers(1, canaries))
    correct = data.draw(st.integers(0, guesses))
    delta = data.draw(st.sampled_from([0.0, 1e-5, 1e-3, 0.02]))
    for epsilon in (0.0, 0.3, 2.0):
        expected = written_out(correct, guesses, canaries, epsilon, delta)
        assert p_value(correct, guesses, canaries, epsilon, delta) == pytest.approx(expected, rel=1e-9, abs=1e-14)
    bound = lower_bound(correct, guesses, canaries, delta)
    if bound > 0:
        assert written_out(correct, guesses, canaries, bound - 1e-6, delta) < 0.05
    assert written_out(correct, guesses, canaries, bound + 1e-6, delta) >= 0.05 - 1e-9


def test_guesses_are_the_extremes_and_the_rest_is_silence():
    """By hand: the two highest scores are in and out, the lowest is out, and the others do not count."""
    scores = torch.tensor([0.1, 5.0, -3.0, 4.0, 0.2, 0.3], dtype=torch.float64)
    included = torch.tensor([True, True, False, False, True, False])
    found = OneRunAudit(2, 1)(scores, included)
    assert (found.correct, found.guesses, found.canaries) == (2, 3, 6)
    order = torch.randperm(6, generator=seed(0))
    assert OneRunAudit(2, 1)(scores[order], included[order]) == found
    assert OneRunAudit(1, 0)(scores, included).correct == 1
    assert OneRunAudit(0, 2)(scores, included).correct == 1


def randomized_response(epsilon):
    """Publishes each coin, but turned with probability 1 / (1 + e^epsilon)."""

    def scores(included, generator):
        truthful = torch.rand(len(included), generator=generator) < 1 / (1 + math.exp(-epsilon))
        return (included == truthful).double() + 1e-6 * torch.rand(len(included), generator=generator)

    return scores


def often_in_clear(delta):
    """Publishes each coin with probability delta, and noise otherwise: (0, delta)-DP."""

    def scores(included, generator):
        clear = torch.rand(len(included), generator=generator) < delta
        return torch.where(clear, 2 * included.double() - 1, 0) + 1e-6 * torch.rand(len(included), generator=generator)

    return scores


def gaussian(sigma):
    return lambda included, generator: included + sigma * torch.randn(len(included), generator=generator).double()


MECHANISMS = {
    "randomized response": (randomized_response(1.0), 1.0, 0.0, (0.01, 0.05)),
    "randomized response, few guesses": (randomized_response(2.0), 2.0, 0.0, (0.0, 0.05)),
    "all in clear, seldom": (often_in_clear(0.05), 0.0, 0.05, (0.0, 0.05)),
    "Gaussian": (gaussian(1.0), gaussian_epsilon(1.0, 1e-3).item(), 1e-3, (0.0, 0.05)),
    "nothing": (randomized_response(0.0), 0.0, 0.0, (0.01, 0.05)),
}


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_bound_hardly_ever_passes_the_truth(name):
    """In 600 runs of 400 canaries; where theory says that it is sharp, it does pass it now and then."""
    scores, truth, delta, (least, most) = MECHANISMS[name]
    audit = OneRunAudit(40, 40, delta) if "few" in name else OneRunAudit(200, 200, delta)
    generator = seed(1)
    passed = 0
    for _ in range(600):
        included = coins(400, generator)
        passed += audit(scores(included, generator), included).epsilon > truth
    assert binom.ppf(CHANCE, 600, least) <= passed <= binom.ppf(1 - CHANCE, 600, most)


@pytest.mark.parametrize("confidence", [0.9, 0.99])
@pytest.mark.parametrize(("canaries", "guesses"), [(5, 4), (40, 40), (400, 20), (500, 500)])
def test_a_bound_holds_at_any_size(canaries, guesses, confidence):
    """Of randomised response that also publishes each coin in clear with probability delta: by the law of its counts,
    2,000 audits each, with epsilon and delta from nothing to much."""
    rng, runs = np.random.default_rng(0), 2000
    for truth, delta in ((0.0, 0.0), (1.0, 0.0), (4.0, 0.0), (0.0, 0.1), (1.0, 1e-3), (1.0, 0.5)):
        inside = rng.binomial(canaries, 0.5, runs)
        clear = sum(
            np.minimum(rng.binomial(some, delta), share)
            for some, share in ((inside, guesses - guesses // 2), (canaries - inside, guesses // 2))
        )
        correct = clear + rng.binomial(guesses - clear, 1 / (1 + math.exp(-truth)))
        bounds = {v: lower_bound(v, guesses, canaries, delta, confidence) for v in np.unique(correct).tolist()}
        passed = sum(bounds[v] > truth + 1e-9 for v in correct.tolist())
        assert passed <= binom.ppf(1 - CHANCE, runs, 1 - confidence), (truth, delta)


def test_what_delta_allows_is_not_taken_for_epsilon():
    """A mechanism that is (0, 0.05)-DP looks like epsilon > 0 to an audit that forgets its delta."""
    generator = seed(2)
    forgotten = 0
    for _ in range(100):
        included = coins(1000, generator)
        forgotten += OneRunAudit(500, 500)(often_in_clear(0.05)(included, generator), included).epsilon > 0
    assert forgotten > 25


def test_counts_chosen_on_the_other_half_keep_the_confidence():
    """Scores that know nothing: the best counts for the same coins claim too much too often, those of a half do not."""
    generator = seed(3)
    greedy = honest = 0
    for _ in range(150):
        included, scores = coins(200, generator), torch.randn(200, generator=generator)
        audits = [OneRunAudit(k, j) for k in (0, 5, 10, 20, 50) for j in (0, 5, 10, 20, 50) if k + j]
        greedy += max(audit(scores, included).epsilon for audit in audits) > 0
        honest += split_audit(scores, included, delta=0.0, generator=generator).epsilon > 0
    assert greedy > binom.ppf(1 - CHANCE, 150, 0.05)
    assert honest <= binom.ppf(1 - CHANCE, 150, 0.05)


def test_the_half_finds_the_counts_that_pay():
    """A tenth of the canaries is known for certain: guessing at all of them would find far less."""
    included = coins(4000, seed(4))
    known = torch.arange(4000) % 10 == 0
    scores = torch.where(known, 2.0 * included - 1, 0) + 0.01 * torch.randn(4000, generator=seed(5))
    found = split_audit(scores, included, delta=1e-5, generator=seed(6))
    assert found.canaries == 2000
    assert found.epsilon > 2 > 1 > OneRunAudit(2000, 2000, 1e-5)(scores, included).epsilon


HALF = torch.arange(10) < 5
WRONG = {
    "not both be 0": lambda: OneRunAudit(0, 0),
    "must not be negative": lambda: OneRunAudit(-1, 3),
    "delta must lie": lambda: OneRunAudit(1, 1, delta=1.0),
    "confidence in": lambda: OneRunAudit(1, 1, confidence=1.0),
    "12 guesses about 10 canaries": lambda: OneRunAudit(6, 6)(torch.zeros(10), HALF),
    "need a score": lambda: OneRunAudit(1, 1)(torch.zeros(9), HALF),
    "bool": lambda: OneRunAudit(1, 1)(torch.zeros(10), HALF.double()),
    "finite": lambda: OneRunAudit(1, 1)(torch.full((10,), np.nan), HALF),
    "cannot be halved": lambda: split_audit(torch.zeros(3), HALF[:3], delta=0, generator=seed(0)),
    "correct <= guesses": lambda: lower_bound(5, 4, 10, 0),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_audit_is_refused(message):
    with pytest.raises(ValueError, match=message):
        WRONG[message]()
