"""A policy under attack: whose episodes they are, and that an attacker only ever takes return away."""

from functools import partial
from itertools import pairwise

import gymnasium
import pytest
import torch
from torch import nn

from aisec_lab.attacks import FGSM, Linf, Margin
from aisec_lab.core import bounded_mean
from aisec_lab.data import demonstrations, observed
from aisec_lab.data.cartpole import LIMITS, regulator
from aisec_lab.defenses import Standard
from aisec_lab.evaluation import episodes, return_curve
from aisec_lab.models import MLP, Fit


def seed(number):
    return torch.Generator().manual_seed(number)


class Regulator(nn.Module):
    """The teacher itself, as a classifier of observations."""

    def forward(self, x):
        push = ((2 * x - 1) * torch.tensor(LIMITS)) @ torch.tensor(regulator())
        return torch.stack([-push, push], 1)


@pytest.fixture(scope="module")
def policy():
    """A small network that imitates the regulator."""
    model = MLP((16,))((4,), 2, generator=seed(0))
    Fit(epochs=8)(model, demonstrations(2000, generator=seed(1)), Standard(), generator=seed(2))
    return model


attack = partial(FGSM, loss=Margin())


def test_the_regulator_balances_what_gymnasium_simulates():
    """Its gains come from the lab's own constants: were one wrong, the pole would fall."""
    assert episodes(Regulator().eval(), number=10, horizon=500, seed=0).tolist() == [500] * 10


def test_an_episode_alone_is_the_one_that_gymnasium_plays():
    """Step by step in the single environment, from the same start, with a policy that fails early."""
    model = Regulator().eval()

    def away(x):
        return -model(x)

    lost = type("Lost", (nn.Module,), {"forward": lambda self, x: away(x)})().eval()
    world = gymnasium.make("CartPole-v1")
    vector = gymnasium.make_vec("CartPole-v1", num_envs=5, vectorization_mode="vector_entry_point")
    starts, _ = vector.reset(seed=3)
    expected = []
    for start in starts:
        world.reset(seed=0)
        world.unwrapped.state, state, steps, fell = start, start, 0, False
        while not fell:
            action = int(lost(observed(torch.from_numpy(state)[None])).argmax())
            state, _, fell, _, _ = world.step(action)
            steps += 1
        expected.append(steps)
    assert episodes(lost, number=5, horizon=500, seed=3).tolist() == expected
    assert max(expected) < 50


def test_demonstrations_are_the_regulators_actions():
    """Observed and turned back; both actions, as often; the same from the same generator."""
    data = demonstrations(500, generator=seed(4))
    assert data.features == ("position", "velocity", "angle", "angular velocity")
    assert (Regulator()(data.x).argmax(1) == data.y).double().mean() > 0.99
    assert 0.4 < data.y.double().mean() < 0.6
    assert torch.equal(demonstrations(500, generator=seed(4)).x, data.x)


def test_observations_are_held_at_the_limits():
    """Rest is 0.5; beyond a limit is its end."""
    state = torch.tensor([[0.0, 0, 0, 0], [2.4, -3, 0.21, 99], [-9, 1.5, -0.105, 3]])
    expected = torch.tensor([[0.5, 0.5, 0.5, 0.5], [1, 0, 1, 1], [0, 0.75, 0.25, 1]])
    assert torch.allclose(observed(state), expected, atol=1e-6)


def test_eps_zero_changes_nothing_and_more_takes_more(policy):
    """The mean return never rises with eps by more than 5 % of the horizon, and falls to less than a third of it."""
    calm = episodes(policy, number=20, horizon=200, seed=0)
    assert torch.equal(episodes(policy, number=20, horizon=200, seed=0, attack=attack(Linf(0))), calm)
    assert calm.mean() > 190
    play = {"levels": [0, 0.03, 0.06, 0.1], "number": 20, "horizon": 200, "seed": 0, "study": "evasion"}
    rows = return_curve(policy, attack(Linf(0.0)), **play)
    values = [row["value"] for row in rows]
    assert values[0] == pytest.approx(calm.mean().item())
    assert all(after <= before + 10 for before, after in pairwise(values))
    assert values[-1] < 66
    assert all(row["low"] <= row["value"] <= row["high"] and row["study"] == "evasion" for row in rows)
    assert rows == return_curve(policy, attack(Linf(0.0)), **play)


def test_what_is_wrong_is_refused(policy):
    """No episodes, no steps."""
    for settings in ({"number": 0, "horizon": 5}, {"number": 2, "horizon": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            episodes(policy, seed=0, **settings)


@pytest.mark.parametrize("mean", [0.02, 0.5, 0.9])
def test_the_interval_of_a_mean_covers(mean):
    """Of skewed draws on [0, 1], in at least 95 of 100 trials; and it shrinks with more of them."""
    draws = torch.distributions.Beta(mean, 1 - mean)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trials = draws.sample((400, 30)).tolist()
    bounds = [bounded_mean(values, 0, 1) for values in trials]
    assert sum(low <= mean <= high for low, high in bounds) >= 0.95 * len(bounds)
    for values, (low, high) in zip(trials, bounds, strict=True):
        assert 0 <= low <= sum(values) / 30 + 1e-6
        assert sum(values) / 30 - 1e-6 <= high <= 1
    few, many = bounded_mean([0.5] * 10, 0, 1), bounded_mean([0.5] * 1000, 0, 1)
    assert many[1] - many[0] < 0.2 < few[1] - few[0]
    with pytest.raises(ValueError, match=r"all within \[0, 1\]"):
        bounded_mean([0.5, 2.0], 0, 1)
