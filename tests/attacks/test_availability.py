"""Attacks on availability: sponge inputs, and the flooding of a detector."""

import pytest
import torch
from torch import nn

from aisec_lab.attacks import L2, PGD, Linf, Sponge, Targeted, activation_density


def test_density_is_the_share_of_units_above_zero(cnn, sample):
    """Counted by hand, layer by layer, over all units together; hooks are gone afterwards."""
    x = sample[0][:20]
    with torch.no_grad():
        first = cnn[1](cnn[0](x))
        second = cnn[3](cnn[2](first))
    awake = (first != 0).flatten(1).sum(1) + (second != 0).flatten(1).sum(1)
    assert torch.allclose(activation_density(cnn, x), awake / (first[0].numel() + second[0].numel()))
    assert not any(module._forward_pre_hooks for module in cnn.modules())


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("ball", [Linf(0.15), L2(1.0)], ids=repr)
def test_a_sponge_wakes_units_and_never_puts_any_to_sleep(ball, inplace, cnn, sample, seed):
    """Denser than before for nearly all rows, denser than noise of the same size, inside ball and box."""
    model = nn.Sequential(*(nn.ReLU(inplace) if isinstance(m, nn.ReLU) else m for m in cnn)).eval()
    x, y = sample
    x_adv = Sponge(ball)(model, x, y, generator=seed(0))
    before, after = activation_density(model, x), activation_density(model, x_adv)
    assert (after >= before).all()
    assert (after > before).double().mean() > 0.95
    assert after.mean() > activation_density(model, x + ball.sample(x, seed(0))).mean() + 0.02
    assert (ball.norm(x_adv - x) <= ball.eps * (1 + 1e-6)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


def test_a_model_without_zeros_has_nothing_to_lose(linear, seed):
    """Said at once."""
    x = torch.full((2, 12), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="no nn.ReLU"):
        Sponge(Linf(0.1))(linear(12), x, torch.tensor([0, 1]), generator=seed(0))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"step_size": 0}])
def test_impossible_settings_are_refused(settings):
    """When the attack is made, not when it runs."""
    with pytest.raises(ValueError, match="must be positive"):
        Sponge(Linf(0.1), **settings)


class Doubtful(nn.Module):
    """A classifier with a reject option, column K: taken where the leader is not 8 ahead of the mean."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x):
        logits = self.model(x)
        return torch.cat([logits, logits.mean(1, keepdim=True) + 8], 1)


def test_flooding_a_detector_is_the_goal_targeted_at_its_reject_column(cnn, sample, seed):
    """Rows that a detector lets through are made to be turned away, by the attacks that there are."""
    model, x = Doubtful(cnn), sample[0]
    rejected = torch.full((len(x),), 10)
    before = (model(x).argmax(1) == 10).double().mean()
    x_adv = PGD(Linf(0.15), goal=Targeted())(model, x, rejected, generator=seed(0))
    assert before < 0.2
    assert (model(x_adv).argmax(1) == 10).double().mean() > 0.85
