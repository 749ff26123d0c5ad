"""Data-free extraction: the estimated gradient against closed forms, the directions of both players, what it steals."""

import pytest
import torch
from torch import nn

from aisec_lab.attacks import Oracle
from aisec_lab.attacks.extraction.data_free import DataFree, _Game, finite_differences, logits_from_probabilities
from aisec_lab.data import Dataset
from aisec_lab.models import MLP


def pool_of(digits):
    x, y = digits
    return Dataset(x[:100], y[:100], tuple("0123456789"), "digits")


def test_logits_are_recovered_up_to_their_mean(seed):
    """log p - mean log p; a probability of 0 gets a finite one, the lowest."""
    logits = 3 * torch.randn(20, 10, generator=seed(0))
    expected = logits - logits.mean(1, keepdim=True)
    assert torch.allclose(logits_from_probabilities(logits.softmax(1)), expected, rtol=0, atol=1e-5)
    top = logits_from_probabilities(torch.tensor([[0.0, 0.3, 0.7]]))
    assert top.isfinite().all()
    assert top.argsort(1).tolist() == [[0, 1, 2]]


def test_forward_differences_along_a_basis_are_the_gradient(seed):
    """Of a linear function exactly; along random directions on average, with the variance that theory gives."""
    d, epsilon = 6, 1e-3
    a = torch.randn(4, d, generator=seed(0), dtype=torch.float64)  # a function for each of four points
    u = torch.linalg.qr(torch.randn(d, d, generator=seed(1), dtype=torch.float64)).Q[:, None].expand(-1, 4, -1)
    value = torch.randn(4, generator=seed(2), dtype=torch.float64)
    assert torch.allclose(finite_differences(value, value + epsilon * (u * a).sum(2), u, epsilon), a, rtol=0, atol=1e-9)

    m = 40_000
    u = nn.functional.normalize(torch.randn(m, 4, d, generator=seed(3), dtype=torch.float64), dim=2)
    estimate = finite_differences(value, value + epsilon * (u * a).sum(2), u, epsilon)
    square = (estimate - a).square().sum(1)  # expected: (d - 1) |a|^2 / m
    assert square.sum().item() == pytest.approx((d - 1) * a.square().sum().item() / m, rel=0.9)


@pytest.fixture
def victim(seed):
    """A network as it was drawn."""
    return MLP((32,))((1, 8, 8), 10, generator=seed(7)).eval()


@pytest.fixture
def game(victim, seed):
    """A game whose copy has just been drawn."""
    settings = DataFree(MLP((32,)), generator_rate=0.01, directions=4)
    copy = MLP((32,))((1, 8, 8), 10, generator=seed(0))
    return _Game(settings, Oracle(victim), copy, (1, 8, 8), 400, seed(1))


def disagreement(game):
    """Mean distance of copy and victim on 640 fresh inputs of the generator."""
    with torch.no_grad():
        return torch.cat([game.apart(*game.answered(game.drawn())) for _ in range(10)]).mean().item()


def test_the_generator_climbs_and_the_copy_descends(game):
    """With the copy held still its inputs get worse for it; with the generator held still the copy gets better."""
    before = disagreement(game)
    weights = [weight.clone() for weight in game.copy.parameters()]
    for _ in range(60):
        game.climb()
    climbed = disagreement(game)
    assert climbed > 1.1 * before
    assert all(torch.equal(a, b) for a, b in zip(weights, game.copy.parameters(), strict=True))
    for _ in range(60):
        game.descend(*game.answered(game.drawn().detach()))
    assert disagreement(game) < 0.8 * climbed


@pytest.mark.parametrize(
    ("settings", "a_round"), [({}, 4), ({"directions": 3, "copy_steps": 1}, 5), ({"generator_rate": 0.0}, 2)], ids=str
)
def test_it_spends_whole_rounds_and_no_query_more(settings, a_round, victim, digits, seed):
    """One query tells the number of classes; a generator that stays as it is needs no gradient."""
    oracle = Oracle(victim, budget=700)
    attack = DataFree(MLP((8,)), budget=700, batch_size=32, replays=1, **settings)
    stolen = attack(oracle, pool_of(digits), generator=seed(0))
    assert stolen.queries == oracle.queries == 1 + 699 // (32 * a_round) * 32 * a_round
    assert not stolen.model.training


def test_it_needs_no_data(victim, digits, seed):
    """The pool's rows do not matter; the same generator gives the same copy, to the bit."""
    attack = DataFree(MLP((8,)), budget=1000)
    empty = Dataset(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), ("none",), "black")
    first = attack(Oracle(victim), pool_of(digits), generator=seed(0)).model
    again = attack(Oracle(victim), empty, generator=seed(0)).model
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not victim.training


def test_noise_and_answers_are_enough_for_a_copy_of_a_classifier_of_digits(cnn, sample, digits, seed):
    """Far above the tenth that a copy which has learned nothing would have in common with it."""
    stolen = DataFree(MLP((128,)), budget=8000)(Oracle(cnn), pool_of(digits), generator=seed(0))
    same = stolen.model(sample[0]).argmax(1) == cnn(sample[0]).argmax(1)
    assert same.double().mean() > 0.4


def test_what_cannot_be_is_refused(victim, digits, seed):
    """Labels, from which no gradient is estimated; budgets below a round; settings."""
    attack, pool = DataFree(MLP((8,)), budget=256), pool_of(digits)
    with pytest.raises(ValueError, match="publishes labels: take Knockoff"):
        attack(Oracle(victim, labels_only=True), pool, generator=seed(0))
    with pytest.raises(ValueError, match="needs a budget of 257 queries at least, got 256"):
        attack(Oracle(victim), pool, generator=seed(0))
    for settings in ({"batch_size": 1}, {"replays": -1}, {"epsilon": 0.0}, {"directions": 0}):
        with pytest.raises(ValueError, match="at least 2 rows"):
            DataFree(MLP(), **settings)
