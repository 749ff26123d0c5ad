"""The hunt: the broken are found, the correct left alone, in simulation and in the training that studies run."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import binom

from aisec_lab.models import Fit
from aisec_lab.models.training.fit import shuffled
from aisec_lab.privacy import dp_sgd, dp_step
from aisec_lab.privacy.accounting import SampledGaussian
from aisec_lab.privacy.auditing.mechanism import MechanismAudit, log_likelihood_ratio
from aisec_lab.privacy.auditing.simulated import CorrectMechanism, HalfNoise, NoClipping, ShuffledMechanism
from aisec_lab.privacy.auditing.training import TrainingMechanism
from aisec_lab.privacy.clipping import FlatClipping, GhostClipping
from aisec_lab.privacy.dp_sgd import DPSGD

FEW = SampledGaussian(0.25, 0.5, 4)  # an epoch of four steps, at little noise
LONGER = SampledGaussian(0.1, 0.5, 10)
MANY = SampledGaussian(0.01, 1.0, 100)


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("claimed", [SampledGaussian(0.2, 0.7, 3), SampledGaussian(1.0, 2.0, 3)], ids=repr)
def test_the_likelihood_ratio_is_that_of_the_densities(claimed):
    """A mixture of two normal laws over one, step by step."""
    sums = 2 * torch.randn(50, 3, dtype=torch.float64, generator=seed(0))

    def density(mean):
        return (-((sums - mean) ** 2) / (2 * claimed.sigma**2)).exp()

    expected = (((1 - claimed.q) * density(0) + claimed.q * density(1)) / density(0)).log().sum(1)
    torch.testing.assert_close(log_likelihood_ratio(sums, claimed), expected)


@pytest.mark.parametrize("claimed", [FEW, MANY, SampledGaussian(1.0, 2.0, 3)], ids=repr)
def test_a_correct_mechanism_shows_the_whole_profile_that_is_claimed(claimed):
    """The better direction reaches each delta of the accountant, to sampling error: the test could not be stronger."""
    found = MechanismAudit(claimed, runs=200_000, noises=(1.0,))(CorrectMechanism(claimed), generator=seed(1))
    near = found.epsilons <= 2  # at larger ones few runs decide
    assert not found.rejected
    np.testing.assert_allclose(found.measured.max((0, 1))[near], found.claimed[near], atol=0.008)
    assert (found.low < found.measured).all()


def test_both_directions_are_looked_at():
    """Without sampling they show the same; what gives away only that the canary is missing is found, too."""
    claimed = SampledGaussian(1.0, 2.0, 3)
    found = MechanismAudit(claimed, runs=100_000, noises=(1.0,))(CorrectMechanism(claimed), generator=seed(1))
    np.testing.assert_allclose(found.measured[0, 0, :4], found.measured[0, 1, :4], atol=0.015)

    def missed(included, runs, generator):
        sums = CorrectMechanism(claimed)(included, runs, generator=generator)
        return sums if included else torch.where(torch.rand(runs, 1, generator=generator) < 0.4, -20.0, sums)

    told = MechanismAudit(claimed)(missed, generator=seed(2))
    assert told.rejected
    assert (told.low - told.claimed)[:, 1].max() == told.margin > 0.2


class Case(NamedTuple):
    claimed: SampledGaussian
    broken: type[CorrectMechanism]
    at: tuple[float, float]  # the epsilons between which it shows best


BROKEN = [
    Case(FEW, HalfNoise, (1, 4)),
    Case(MANY, HalfNoise, (0, 1)),
    Case(FEW, NoClipping, (1, 4)),
    Case(MANY, NoClipping, (0, 1)),
    Case(FEW, ShuffledMechanism, (0, 0.25)),
    Case(LONGER, ShuffledMechanism, (0, 0.25)),
]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: f"{case.broken.__name__} {case.claimed}")
def test_what_is_broken_is_found(case):
    """In each of 20 hunts, so that the power is at least 0.86 at 95 % confidence; `benchmarks/audit.py` has more."""
    generator = seed(2)
    for _ in range(20):
        found = MechanismAudit(case.claimed)(case.broken(case.claimed), generator=generator)
        assert found.rejected
        assert case.at[0] <= found.epsilon <= case.at[1]


@pytest.mark.parametrize("claimed", [FEW, MANY], ids=repr)
def test_what_is_correct_is_left_alone(claimed):
    """At a level of 0.3 and with few runs, no more often than it says."""
    generator, hunt = seed(3), MechanismAudit(claimed, runs=500, level=0.3)
    accused = sum(hunt(CorrectMechanism(claimed), generator=generator).rejected for _ in range(100))
    assert accused <= binom.ppf(0.999, 100, 0.3)


def test_shuffling_shows_near_epsilon_zero_and_not_at_a_small_delta():
    """Where the claim's delta is near 1e-5, hundreds of thousands of runs find nothing."""
    found = MechanismAudit(FEW, runs=300_000, epsilons=(0.0, 14.0))(ShuffledMechanism(FEW), generator=seed(4))
    assert 2e-6 < found.claimed[1] < 5e-5
    at_zero, at_small_delta = (found.low - found.claimed).max((0, 1))
    assert at_zero > 0.08
    assert at_small_delta < 0


def test_low_noise_hides_from_the_claimed_likelihood_ratio():
    """Where the canary is rarely in a batch, half the noise is found by the ratio of half the noise."""
    alone = MechanismAudit(MANY, noises=(1.0,))(HalfNoise(MANY), generator=seed(6))
    both = MechanismAudit(MANY)(HalfNoise(MANY), generator=seed(6))
    assert not alone.rejected
    assert both.rejected


NORM, FIT = 0.1, Fit(epochs=1, batch_size=250, learning_rate=0.001, weight_decay=0.0, momentum=0.0)
PATCHES = {
    "as it is": lambda patch: None,
    "noise halved": lambda patch: patch.setattr(dp_step, "normals", halved(dp_step.normals)),
    "clipping forgotten": lambda patch: patch.setattr(
        FlatClipping, "clip_factors", lambda self, norms, *_: torch.ones_like(norms)
    ),
    "shuffled": lambda patch: patch.setattr(dp_sgd, "poisson_batches", shuffled_by),
}


def halved(normals):
    return lambda shape, generator: normals(shape, generator) / 2


def shuffled_by(rows, batch_size, generator):
    return shuffled(rows, batch_size, generator)


@pytest.mark.parametrize("clipping", [FlatClipping(NORM), GhostClipping(NORM)], ids=repr)
@pytest.mark.parametrize("patch", PATCHES)
def test_the_training_that_studies_run_is_hunted(patch, clipping, monkeypatch):
    """As it is, it is left alone; a mistake in its own code is found."""
    recipe = DPSGD(noise_multiplier=FEW.sigma, clipping=clipping)
    assert recipe.mechanism(FIT, 1000) == FEW
    PATCHES[patch](monkeypatch)
    found = MechanismAudit(recipe.mechanism(FIT, 1000))(TrainingMechanism(recipe, FIT, 1000, NORM), generator=seed(7))
    assert found.rejected == (patch != "as it is")


def test_the_sums_of_a_training_are_those_of_its_mechanism():
    """Mean q, variance sigma^2 + q (1 - q), nothing from one step to the next; without a canary noise alone."""
    training = TrainingMechanism(DPSGD(noise_multiplier=0.5, clipping=FlatClipping(NORM)), FIT, 1000, NORM)
    sums = training(True, 5000, generator=seed(8))
    assert sums.shape == (5000, 4)
    torch.testing.assert_close(sums.mean(), torch.tensor(0.25), atol=0.02, rtol=0)
    torch.testing.assert_close(sums.T.cov(), (0.25 + 0.1875) * torch.eye(4), atol=0.03, rtol=0)
    without = training(False, 1500, generator=seed(9))
    assert without.shape == (1500, 4)
    torch.testing.assert_close(without.T.cov(), 0.25 * torch.eye(4), atol=0.04, rtol=0)


WRONG = {
    "runs must be positive": lambda: MechanismAudit(FEW, runs=0),
    "level lie in": lambda: MechanismAudit(FEW, level=1.0),
    "none negative": lambda: MechanismAudit(FEW, epsilons=(-1.0,)),
    "epsilons must be some": lambda: MechanismAudit(FEW, epsilons=()),
    "positive multiples": lambda: MechanismAudit(FEW, noises=(0.0,)),
    "without noise": lambda: MechanismAudit(SampledGaussian(0.1, 0.0, 1)),
    "= \\(10, 4\\), got \\(10, 100\\)": lambda: MechanismAudit(FEW, runs=10)(CorrectMechanism(MANY), generator=seed(0)),
    "40 of them not finite": lambda: MechanismAudit(FEW, runs=10)(
        lambda included, runs, generator: torch.full((runs, 4), math.nan), generator=seed(0)
    ),
    "momentum 0": lambda: TrainingMechanism(DPSGD(noise_multiplier=1.0), Fit(), 10, 0.1),
    "norm must lie": lambda: TrainingMechanism(DPSGD(noise_multiplier=1.0), FIT, 10, 1.0),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_hunt_is_refused(message):
    with pytest.raises(ValueError, match=message):
        WRONG[message]()
