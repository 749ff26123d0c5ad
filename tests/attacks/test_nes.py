"""NES: an estimate without a bias, and a search within its budget."""

import pytest
import torch

from aisec_lab.attacks import L2, NES, CrossEntropy, Linf, Margin, Oracle, Targeted, Untargeted
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient
from aisec_lab.core import RowNoise


@pytest.mark.parametrize("loss", [Margin(), CrossEntropy()], ids=repr)
def test_the_estimate_is_the_gradient_on_average(loss, linear, seed):
    """To 5 standard errors: the variance of a coordinate over one pair is |g|^2 + g_i^2 where the loss is linear."""
    model, pairs = linear(12), 5_000
    z, y = torch.full((2, 12), 0.5, dtype=torch.float64), torch.tensor([0, 1])
    z[1] += 0.1
    _, _, grad = loss_and_gradient(model, z, lambda logits: loss(logits, y))
    with torch.no_grad():
        estimate = NES(Linf(0.1), loss=loss).gradient(model, z, y, RowNoise(z, seed(0)), pairs)
    error = ((grad.norm(dim=1, keepdim=True) ** 2 + grad**2) / pairs).sqrt()
    assert ((estimate - grad).abs() < 5 * error).all()
    assert grad.norm() > 20 * error.max()  # or the bound would say nothing


def test_a_target_turns_the_estimate_round(linear, seed):
    """The loss against the target descends."""
    model, z, y = linear(12), torch.full((1, 12), 0.5, dtype=torch.float64), torch.tensor([0])
    estimates = [
        NES(Linf(0.1), goal=goal).gradient(model, z, y, RowNoise(z, seed(0)), 10) for goal in (Untargeted(), Targeted())
    ]
    assert torch.equal(estimates[0], -estimates[1])


@pytest.mark.parametrize("queries", [2, 5, 60, 201])
def test_no_row_is_seen_more_often_than_the_budget_allows(queries, cnn, sample, seed):
    """A row that stands to the end uses all of it but for what is too little for a step; a wrong one asks once."""
    x, y = sample
    attack = NES(Linf(0.02), queries=queries)
    stands = cnn(attack(cnn, x, y, generator=seed(0))).argmax(1) == y
    for row in stands.nonzero()[:5, 0].tolist():
        oracle = Oracle(cnn, budget=queries)
        attack(oracle, x[row : row + 1], y[row : row + 1], generator=seed(0))
        assert queries - 2 <= oracle.queries <= queries
    oracle = Oracle(cnn)
    attack(oracle, x[:1], (y[:1] + 1) % 10, generator=seed(0))
    assert oracle.queries == 1


@pytest.mark.parametrize("ball", [Linf(0.12), L2(0.5)], ids=repr)
def test_scores_are_enough_to_come_near_to_the_closed_form(ball, linear, seed):
    """On a linear model the margin falls to within a tenth of eps times the dual norm; far from the box."""
    x = 0.3 + 0.4 * torch.rand(20, 30, generator=seed(1), dtype=torch.float64)
    model = linear(30)
    slope = (model[1].weight[1] - model[1].weight[0]).detach()
    most = ball.eps * slope.norm(1 if ball.name == "Linf" else 2)
    logits = model(x).detach()
    y = logits.argmax(1)
    before = logits.gather(1, y[:, None])[:, 0] - logits.gather(1, 1 - y[:, None])[:, 0]
    after = Untargeted().margin(model(NES(ball, queries=2000)(model, x, y, generator=seed(0))), y).detach()
    assert (before - after <= most * (1 + 1e-9)).all()
    assert (after[before < 0.9 * most] < 0).all()
    assert (before - after)[before > most].min() > 0.9 * most
    assert (before < 0.9 * most).sum() >= 3
    assert (before > most).sum() >= 3


@pytest.mark.parametrize(
    "settings", [{"samples": 3}, {"samples": 0}, {"queries": 1}, {"sigma": 0}, {"step_size": 0}, {"momentum": 1}]
)
def test_impossible_settings_are_refused(settings):
    """When the attack is made, not when it runs."""
    with pytest.raises(ValueError, match="must be"):
        NES(Linf(0.1), **settings)
