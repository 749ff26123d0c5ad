"""Views that make an attack adaptive, surrogates for layers without a gradient, and the reject option."""

from functools import partial

import pytest
import torch
from torch import nn

from aisec_lab.attacks import (
    BPDA,
    EOT,
    PGD,
    Adaptive,
    CrossEntropy,
    DetectorAwareMargin,
    EvadeDetector,
    Linf,
    Untargeted,
)
from aisec_lab.core import RowNoise
from aisec_lab.models import PassCounter, frozen, seeded


class Stairs(nn.Module):
    """Rounded to quarters."""

    differentiable = False

    def forward(self, x):
        return (4 * x).round() / 4


class Noisy(nn.Module):
    """With noise of standard deviation 0.3, keyed by row."""

    generator = None

    def forward(self, x):
        return x + 0.3 * RowNoise(x, self.generator).normal(x.shape[1:], 0)


def broken(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) != y).double().mean().item()


def gradient(model, x):
    z = x.clone().requires_grad_()
    return torch.autograd.grad(model(z)[:, 3].sum(), z)[0]


def test_eot_is_the_mean_over_the_same_draws(cnn, sample, seed):
    """Logits and gradient, against a loop over passes that start from the same generator."""
    x, model = sample[0][:20], nn.Sequential(Noisy(), cnn).eval()
    view = EOT(5)(model)
    with seeded(model, seed(3)):
        logits = view(x)
    with seeded(model, seed(3)):
        grad = gradient(view, x)
    with seeded(model, seed(3)):
        each = torch.stack([model(x) for _ in range(5)])
    with seeded(model, seed(3)):
        grads = torch.stack([gradient(model, x) for _ in range(5)])
    assert each.std(0).min() > 0
    torch.testing.assert_close(logits, each.mean(0))
    torch.testing.assert_close(grad, grads.mean(0))


def test_eot_breaks_more_than_a_single_draw(cnn, sample, seed):
    """Judged on fresh draws of the randomised model, the attack on the mean is the stronger one."""
    x, y = sample[0][:100], sample[1][:100]
    model = nn.Sequential(Noisy(), cnn).eval()
    make, found = partial(PGD, steps=20, early_stop=False), []
    for attack in (make(Linf(0.1)), Adaptive(Linf(0.1), make, EOT(10))):
        with seeded(model, seed(1)):
            x_adv = attack(model, x, y, generator=seed(0))
        with seeded(model, seed(2)):
            found.append(sum(broken(model, x_adv, y) for _ in range(20)) / 20)
    assert found[1] > found[0] + 0.02


def test_bpda_changes_the_backward_pass_alone(cnn, sample):
    """The same logits to the bit; the gradient is the model's at the rounded point, where before it was zero."""
    x = sample[0][:20]
    model = nn.Sequential(Stairs(), cnn).eval()
    view = BPDA()(model)
    assert torch.equal(view(x), model(x))
    assert not gradient(model, x).any()
    torch.testing.assert_close(gradient(view, x), gradient(cnn, Stairs()(x)))
    assert not gradient(model, x).any()


def test_bpda_takes_the_surrogate_it_is_given(cnn, sample):
    """A surrogate of slope 2 doubles the gradient."""
    x = sample[0][:20]
    model = nn.Sequential(Stairs(), cnn).eval()
    double = BPDA(surrogate=lambda z: 2 * z)(model)
    assert torch.equal(double(x), model(x))
    torch.testing.assert_close(gradient(double, x), 2 * gradient(BPDA()(model), x))


def test_bpda_works_at_any_depth_frozen_and_counted(cnn, sample, seed):
    """Inside a nested, counted model that an attack freezes: it breaks what plain PGD does not, and counts go on."""
    x, y = sample
    model = PassCounter(nn.Sequential(nn.Sequential(Stairs()), cnn).eval())
    plain = PGD(Linf(0.15), steps=20)(model, x, y, generator=seed(0))
    model.forward_passes = model.backward_passes = 0
    adaptive = Adaptive(Linf(0.15), partial(PGD, steps=20), BPDA())(model, x, y, generator=seed(0))
    assert broken(model, plain, y) < 0.2
    assert broken(model, adaptive, y) > 0.4
    assert model.backward_passes > len(x)


def test_a_view_leaves_modes_and_hooks_alone(cnn):
    """A part in training mode is seen at the door; after a pass that fails no hook is left."""
    model = nn.Sequential(Stairs(), nn.Dropout(), cnn).eval()
    model[1].train()
    for view in (BPDA()(model), EOT(2)(model)):
        assert model[1].training
        with pytest.raises(ValueError, match="training mode"):
            PGD(Linf(0.1))(view, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), generator=torch.Generator())
        with pytest.raises(RuntimeError), frozen(view):
            view(torch.rand(2, 7, 8, 8))
    assert not model[0]._forward_hooks


def test_bpda_without_anything_to_replace_is_refused(cnn):
    """With the mend."""
    with pytest.raises(ValueError, match="no part of the Sequential.*differentiable = False"):
        BPDA()(cnn)
    with pytest.raises(ValueError, match="draws must be positive"):
        EOT(0)


def test_to_be_rejected_is_no_success():
    """Columns: three classes and the reject option; the true class is 0. Only an accepted wrong answer wins."""
    logits = torch.tensor([[2.0, 1, 0, 1.5], [1, 2, 0, 1.5], [1, 2, 0, 3], [1, 0, 1.75, 1.25]])
    y = torch.zeros(4, dtype=torch.int64)
    assert EvadeDetector().margin(logits, y).tolist() == [1, -0.5, 1, -0.5]
    assert DetectorAwareMargin()(logits, y).tolist() == [-1, 0.5, -1, 0.5]
    assert (Untargeted().margin(logits, y) < 0).tolist() == [False, True, True, True]


def test_the_loss_of_the_goal_goes_round_the_reject_option(seed):
    """Class 1 lies beyond a wall in which the input is rejected: cross-entropy stops inside it, this loss does not."""

    class Walled(nn.Module):
        def forward(self, x):
            move, up = x.flatten(1).unbind(1)
            zero = torch.zeros_like(move)
            classes = torch.stack([zero, 20 * (move - 0.3)], 1)
            return torch.cat([classes, (classes.amax(1) + 10 * (up - 0.2))[:, None]], 1)

    x, y = torch.full((6, 2), 0.25), torch.zeros(6, dtype=torch.int64)
    model = Walled().eval()
    attacks = [PGD(Linf(0.2), goal=EvadeDetector(), loss=loss) for loss in (CrossEntropy(), DetectorAwareMargin())]
    wins = [EvadeDetector().margin(model(attack(model, x, y, generator=seed(0))), y) < 0 for attack in attacks]
    assert not wins[0].any()
    assert wins[1].all()
