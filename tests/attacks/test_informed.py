"""Informed reconstruction: as often right as a closed form says, never above the bound, and as Bayes' rule has it."""

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from aisec_lab.attacks.inference.informed import (
    BayesReconstruction,
    GradientObservation,
    GradientRecorder,
    PriorAwareReconstruction,
    clipped_gradients,
    subsampled_log_ratio,
)
from aisec_lab.core import clopper_pearson
from aisec_lab.models import CNN
from aisec_lab.models.training.fit import Losses

NORM = 0.1  # below every gradient's length here, so that all are cut to it


def network(inputs=6, classes=2):
    """Linear, so that gradients of rows with different unit vectors are orthogonal at any weights."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes, bias=False)).eval()
    nn.init.zeros_(model[1].weight)
    return model


def known(inputs=6):
    x = torch.zeros(3, inputs)
    x[:, -1] = 1
    return x, torch.tensor([0, 1, 0])


class DPSGDByHand(NamedTuple):
    """Private training of the linear model, on three known rows and an unknown one, and what is seen of it."""

    steps: int
    q: float
    sigma: float

    def __call__(self, x, y, *, generator):
        x, y = torch.cat([known(x.shape[1])[0], x]), torch.cat([known()[1], y])
        weight, observations = torch.zeros(2, x.shape[1]), []
        for _ in range(self.steps):
            rows = ((x @ weight.T).softmax(1) - F.one_hot(y, 2)).unsqueeze(2) * x.unsqueeze(1)  # (4, 2, inputs)
            rows = rows.flatten(1) * (NORM / rows.flatten(1).norm(dim=1, keepdim=True))
            rows *= torch.rand(len(x), 1, generator=generator) < self.q
            noise = self.sigma * NORM * torch.randn(rows.shape[1], generator=generator)
            observations.append(GradientObservation({"1.weight": weight}, rows[-1] + noise))
            weight = weight - 0.1 * (rows.sum(0) + noise).view_as(weight) / (self.q * len(x))
        return observations


def times_right(training, attacks, x, y, seed, runs=250):
    """How many of the runs, each on another of the candidates in turn, end in the right guess of each attack."""
    model, right = network(x.shape[1]), [0] * len(attacks)
    for run in range(runs):
        i = run % len(x)
        observations = training(x[i : i + 1], y[i : i + 1], generator=seed(run))
        right = [
            n + int(attack(model, observations, x, y).argmax() == i) for n, attack in zip(right, attacks, strict=True)
        ]
    return right


def test_it_is_right_as_often_as_the_closed_form_says(seed):
    """Five orthogonal gradients, two steps: the right one's product has to be the largest of five normal variables."""
    steps, sigma, m = 2, 1.4, 5
    training = DPSGDByHand(steps, 1.0, sigma)
    x, y = torch.eye(6)[:m], torch.zeros(m, dtype=torch.int64)
    (right,) = times_right(training, [PriorAwareReconstruction(NORM)], x, y, seed)
    lead = math.sqrt(steps) / sigma
    exact = quad(lambda z: norm.pdf(z - lead) * norm.cdf(z) ** (m - 1), -8, 9)[0]
    low, high = clopper_pearson(right, 250, 0.99)
    assert low < exact < high
    assert low < norm.cdf(norm.ppf(1 / m) + lead)  # what no attack passes


def test_two_opposite_candidates_meet_the_bound(seed):
    """A row with the one class or the other: gradients are opposite, and the best attack is as good as the theorem."""
    steps, sigma = 2, 2.0
    x, y = torch.eye(6)[:1].repeat(2, 1), torch.tensor([0, 1])
    training = DPSGDByHand(steps, 1.0, sigma)
    (right,) = times_right(training, [BayesReconstruction(1.0, sigma, NORM)], x, y, seed)
    low, high = clopper_pearson(right, 250, 0.99)
    assert low < norm.cdf(math.sqrt(steps) / sigma) < high
    assert low > 0.5


def test_scores_are_bayes_rule_by_hand(seed):
    """The density of what was seen with each candidate, over that with none, one step and one coin at a time."""
    q, sigma = 0.3, 0.8
    model = network()
    x = torch.rand(4, 6, generator=seed(1)) * torch.tensor([0.01, 0.05, 1, 1]).view(-1, 1)  # two are not cut
    y = torch.tensor([0, 1, 0, 1])
    observations = DPSGDByHand(3, q, sigma)(x[2:3], y[2:3], generator=seed(2))
    expected = torch.zeros(4, dtype=torch.float64)
    products = torch.zeros(4, dtype=torch.float64)
    for observation in observations:
        rows = clipped_gradients(model, observation.weights, x, y, NORM).double()
        noise = torch.distributions.Normal(0, sigma * NORM)
        without = noise.log_prob(observation.gradient.double()).sum()
        with_row = torch.stack([noise.log_prob(observation.gradient.double() - row).sum() for row in rows])
        expected += ((1 - q) + q * (with_row - without).exp()).log()
        products += rows @ observation.gradient.double()
    torch.testing.assert_close(BayesReconstruction(q, sigma, NORM)(model, observations, x, y), expected)
    torch.testing.assert_close(PriorAwareReconstruction(NORM)(model, observations, x, y), products)


def test_with_sampling_bayes_rule_is_right_more_often(seed):
    """Most steps show nothing of the row: to weigh them as the likelihood does pays."""
    x, y = torch.eye(6)[:5], torch.zeros(5, dtype=torch.int64)
    training = DPSGDByHand(8, 0.15, 0.3)
    attacks = [BayesReconstruction(0.15, 0.3, NORM), PriorAwareReconstruction(NORM)]
    bayes, sums = times_right(training, attacks, x, y, seed, runs=120)
    assert bayes > sums + 5


def test_clipped_gradients_are_those_of_autograd(digits, seed):
    """Of a CNN with normalisation layers, row by row; the long ones cut, the short ones as they are."""
    model = CNN(8, 16)((1, 8, 8), 10, generator=seed(0)).eval()
    x, y = digits[0][:6], digits[1][:6]
    own = []
    for row in range(6):
        loss = F.cross_entropy(model(x[row : row + 1]), y[row : row + 1])
        own.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]))
    own = torch.stack(own)
    bound = own.norm(dim=1).median().item()
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    found = clipped_gradients(model, weights, x, y, bound)
    torch.testing.assert_close(found, own * (bound / own.norm(dim=1)).clamp(max=1)[:, None], atol=1e-5, rtol=1e-4)


def test_who_watches_a_step_sees_the_unknown_row_alone(seed):
    """Known rows' gradients are taken away exactly, also where the unknown one is not in the batch, or no row is."""
    model = network()
    x, y = torch.cat([known()[0], torch.full((1, 6), 0.5)]), torch.tensor([0, 1, 0, 1])
    noise = torch.randn(12, generator=seed(0))

    def step(model, optimizer, losses):
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        rows = clipped_gradients(model, weights, losses.x, losses.y, NORM) if len(losses) else torch.zeros(1, 12)
        model[1].weight.grad = ((rows.sum(0) + noise) / 8).view(2, 6)
        optimizer.step()
        return losses()

    watched = GradientRecorder(model, step, 8, NORM, x[3:])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    objective = lambda model, x, y, *, generator: F.cross_entropy(model(x), y, reduction="none")  # noqa: E731
    for rows in ([0, 3, 1], [2], [], [3]):
        watched(model, optimizer, Losses(objective, model, x[rows], y[rows], seed(0)))
    seen = [observation.gradient - noise for observation in watched.observations]
    for present, gradient, observation in zip([True, False, False, True], seen, watched.observations, strict=True):
        (own,) = clipped_gradients(model, observation.weights, x[3:], y[3:], NORM)
        torch.testing.assert_close(gradient, own if present else torch.zeros(12), atol=1e-6, rtol=0)
    first, second = (observation.weights["1.weight"] for observation in watched.observations[:2])
    assert not first.any()
    assert second.any()


@settings(max_examples=50, deadline=None)
@given(st.floats(-50, 50), st.floats(0.001, 1))
def test_a_sampled_ratio_is_the_mixtures(log_ratio, q):
    """Against the formula, which overflows sooner."""
    found = subsampled_log_ratio(torch.tensor([log_ratio], dtype=torch.float64), q).item()
    assert found == pytest.approx(math.log(1 - q + q * math.exp(log_ratio)), abs=1e-9)


def test_what_makes_no_sense_is_refused():
    """At the door."""
    model, (x, y) = network(), known()
    cases = [
        (lambda: BayesReconstruction(q=0), "q must lie in"),
        (lambda: BayesReconstruction(sigma=0), "use PriorAwareReconstruction"),
        (lambda: PriorAwareReconstruction(0), "max_grad_norm be positive"),
        (lambda: PriorAwareReconstruction()(model, [GradientObservation({}, x[0])], 2 * x, y), "inputs must lie in"),
        (lambda: PriorAwareReconstruction()(model, [], x, y), "at least one step"),
        (
            lambda: PriorAwareReconstruction()(model, [GradientObservation({}, x[0])], x, y + 5),
            "classes must lie in 0..1",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
