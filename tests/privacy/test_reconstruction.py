"""What a promise leaves to reconstruction: closed forms, accountant and simulation agree."""

import math
from typing import NamedTuple

import pytest
import torch
from scipy.stats import norm
from torch import nn

from aisec_lab.attacks.inference.informed import BayesReconstruction, GradientRecorder
from aisec_lab.core import clopper_pearson
from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import Fit
from aisec_lab.privacy.accounting import SampledGaussian, epsilon
from aisec_lab.privacy.clipping import GhostClipping
from aisec_lab.privacy.dp_sgd import DPSGD
from aisec_lab.privacy.reconstruction import (
    estimated_success,
    success_bound,
    success_by_epsilon,
    success_without_sampling,
)


def seed(number):
    return torch.Generator().manual_seed(number)


class Case(NamedTuple):
    q: float
    sigma: float
    steps: int
    kappa: float

    @property
    def mechanism(self):
        return [SampledGaussian(self.q, self.sigma, self.steps)]

    @property
    def exact(self):
        """Where everything is in the batch, or there is one step: the event is that the noise is high."""
        with_row = norm.cdf(norm.ppf(self.kappa) + math.sqrt(self.steps) / self.sigma)
        assert self.q == 1 or self.steps == 1
        return (1 - self.q) * self.kappa + self.q * with_row


EXACT = [Case(1, 2.0, 4, 0.1), Case(1, 5.0, 100, 0.01), Case(0.5, 1.0, 1, 0.25), Case(0.1, 0.5, 1, 0.02)]
SAMPLED = [Case(0.1, 1.0, 50, 0.1), Case(0.05, 1.0, 60, 0.02), Case(0.1, 0.4, 10, 0.05)]


@pytest.mark.parametrize("case", EXACT, ids=repr)
def test_the_bound_and_the_simulation_meet_the_closed_form(case):
    """From above, by the accountant's grid; and within its interval."""
    assert case.exact <= success_bound(case.mechanism, case.kappa) <= case.exact * 1.001 + 1e-5
    seen = estimated_success(case.mechanism, case.kappa, generator=seed(0))
    assert seen.low <= case.exact <= seen.high
    assert seen.low <= seen.value <= seen.high
    assert seen.high - seen.low < 0.05
    if case.q == 1:
        assert success_without_sampling(case.sigma, case.steps, case.kappa) == pytest.approx(case.exact)


@pytest.mark.parametrize("case", SAMPLED, ids=repr)
def test_with_sampling_the_bound_and_the_simulation_agree(case):
    """Two ways that share nothing but the mechanism; far below what epsilon alone allows, and what no sampling does."""
    bound = success_bound(case.mechanism, case.kappa)
    seen = estimated_success(case.mechanism, case.kappa, generator=seed(1))
    assert seen.low <= bound <= seen.high * 1.001
    assert case.kappa < bound < success_by_epsilon(epsilon(case.mechanism, 1e-5), 1e-5, case.kappa)
    assert bound < success_without_sampling(case.sigma, case.steps, case.kappa)


def test_the_simulations_interval_covers_the_closed_form():
    """In 100 runs of few draws: at most 12 misses, which an interval of 95 % has with a chance below 0.5 %."""
    case = Case(1, 2.0, 4, 0.1)
    seen = [estimated_success(case.mechanism, case.kappa, draws=500, generator=seed(number)) for number in range(100)]
    assert sum(not each.low <= case.exact <= each.high for each in seen) <= 12


@pytest.mark.parametrize("kappa", [0.9999, 1.0])
def test_an_event_that_nearly_always_happens_is_covered(kappa):
    """Its threshold lies below all draws: every answer is in the event, though some lie below those without the row."""
    case = Case(0.01, 1.0, 1, kappa)
    seen = [estimated_success(case.mechanism, kappa, draws=100, generator=seed(number)) for number in range(60)]
    assert sum(not each.low <= case.exact <= each.high for each in seen) <= 8


def test_equal_ratios_are_shared_out():
    """Without a step, or with next to no signal, the rate is the base rate; half of two equal ones is in the event."""
    for mechanisms in ([], [SampledGaussian(0.1, 1.0, 0)], [SampledGaussian(1e-9, 1e9, 1)]):
        seen = estimated_success(mechanisms, 0.2, draws=1000, generator=seed(0))
        assert seen.low <= seen.value <= seen.high
        assert seen.low <= 0.2 <= seen.high
    assert estimated_success([], 0.2, draws=1000, generator=seed(0)).value == pytest.approx(0.2)


def test_two_runs_on_the_same_row_add_up():
    """Composition is what the accountant composes: as one run of all the steps."""
    half, whole = SampledGaussian(1, 3.0, 2), SampledGaussian(1, 3.0, 4)
    assert success_bound([half, half], 0.1) == pytest.approx(success_bound([whole], 0.1), abs=1e-6)
    once, twice = (estimated_success(each, 0.1, generator=seed(0)) for each in ([half], [half, half]))
    assert once.high < success_without_sampling(3.0, 4, 0.1)
    assert twice.low <= success_without_sampling(3.0, 4, 0.1) <= twice.high


def test_no_step_leaves_the_base_rate_and_no_noise_leaves_nothing():
    """The ends of the scale."""
    assert success_bound([SampledGaussian(0.1, 1.0, 0)], 0.2) == pytest.approx(0.2, abs=1e-3)
    assert success_without_sampling(1.0, 0, 0.2) == pytest.approx(0.2)
    assert success_bound([SampledGaussian(0.1, 0.0, 1)], 0.2) == 1
    assert success_by_epsilon(0, 0, 0.2) == pytest.approx(0.2)
    assert success_by_epsilon(math.log(3), 0.01, 0.2) == pytest.approx(0.61)
    assert success_by_epsilon(1e4, 0, 0.2) == 1


def test_what_makes_no_sense_is_refused():
    """At the door."""
    mechanism = [SampledGaussian(0.1, 1.0, 5)]
    for kappa in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"kappa must lie in \(0, 1\]"):
            success_bound(mechanism, kappa)
    with pytest.raises(ValueError, match="too rarely: ask for 10000"):
        estimated_success(mechanism, 0.01, draws=100, generator=seed(0))
    with pytest.raises(ValueError, match="without noise"):
        estimated_success([SampledGaussian(0.1, 0.0, 5)], 0.1, generator=seed(0))
    with pytest.raises(ValueError, match="sigma must be positive"):
        success_without_sampling(0.0, 1, 0.1)


def opposite(count):
    """Rows (count + 1, 6), of which the last is unknown: its class is 0 or 1, and the two gradients are opposite."""
    x = torch.zeros(count + 1, 6)
    x[:count, 0], x[count, 1] = 1, 1
    return x, torch.zeros(count + 1, dtype=torch.int64)


@pytest.mark.parametrize(("noise", "honest"), [(1.0, True), (0.5, False)])
def test_our_own_training_keeps_to_its_bound_and_no_better(noise, honest):
    """The best attack on what DPSGD really does, two candidates: it meets the bound, with half the noise it passes."""
    sigma, steps, bound, runs = 2.0, 2, 0.1, 150
    x, y = opposite(3)
    candidates, classes = x[-1:].repeat(2, 1), torch.tensor([0, 1])
    fit = Fit(epochs=steps, batch_size=len(x), learning_rate=0.1, weight_decay=0, momentum=0)
    recipe = DPSGD(noise_multiplier=sigma, clipping=GhostClipping(bound))
    mechanism = recipe.mechanism(fit, len(x))
    right = 0
    for run in range(runs):
        y[-1] = run % 2
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False))
        nn.init.zeros_(model[1].weight)
        with recipe.private_step(model, noise * sigma, len(x), seed(run)) as step:
            watched = GradientRecorder(model, step, len(x), bound, x[-1:])
            rows = Dataset(x, y.clone(), ("0", "1"), "opposite")
            fit(model, rows, Standard(), step=watched, generator=seed(run))
        assert len(watched.observations) == mechanism.steps
        scores = BayesReconstruction(mechanism.q, mechanism.sigma, bound)(
            model, watched.observations, candidates, classes
        )
        right += int(scores.argmax() == y[-1])
    limit = success_bound([mechanism], 1 / 2)
    assert limit == pytest.approx(norm.cdf(math.sqrt(steps) / sigma), abs=1e-3)
    low, high = clopper_pearson(right, runs, 0.99)
    assert (low < limit < high) == honest
    assert honest or low > limit
