"""PGD: restarts, early stop, targets, and what adversarial training needs of it."""

import pytest
import torch

from aisec_lab.attacks import FGSM, L2, PGD, CrossEntropy, KullbackLeibler, Linf, Margin, Targeted, Untargeted
from aisec_lab.models import frozen


def margin(model, x, y):
    with torch.no_grad():
        return Untargeted().margin(model(x), y)


def test_fgsm_is_one_signed_step(cnn, sample, seed):
    """x + eps sign(grad), clipped: the formula of the paper, word for word."""
    x, y = sample
    z = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(cnn(z), y), z)
    assert torch.allclose(FGSM(Linf(0.1))(cnn, x, y, generator=seed(0)), (x + 0.1 * grad.sign()).clamp(0, 1))


@pytest.mark.parametrize("ball", [Linf(0.08), L2(0.5)], ids=repr)
def test_more_restarts_never_do_worse(ball, cnn, sample, seed):
    """Per row: what one restart wins stays won, and the lowest margin of the others never rises."""
    x, y = sample
    lowest = margin(cnn, x, y)
    for restarts in (1, 2, 4):
        now = margin(cnn, PGD(ball, steps=6, step_size=0.3, restarts=restarts)(cnn, x, y, generator=seed(0)), y)
        assert (now[lowest >= 0] <= lowest[lowest >= 0] + 1e-5).all()
        lowest = now


@pytest.mark.parametrize("ball", [Linf(0.08), L2(0.5)], ids=repr)
def test_stopping_early_wins_the_same_rows(ball, cnn, sample, seed):
    """On a margin loss, the highest point of all steps is a win if and only if one of the steps is."""
    x, y = sample
    early, late = (
        margin(cnn, PGD(ball, loss=Margin(), early_stop=stop)(cnn, x, y, generator=seed(0)), y) < 0
        for stop in (True, False)
    )
    right = margin(cnn, x, y) >= 0
    assert (early[right] != late[right]).double().mean() <= 0.005


@pytest.mark.parametrize("restarts", [1, 2])
def test_to_the_end_costs_what_it_must(restarts, cnn, sample, seed):
    """A pass forward and backward for each step, one forward more for the last point; all rows, no clean pass."""
    x, y = sample
    passes = {"forward": 0, "backward": 0}

    class Counting(torch.nn.Module):
        def forward(self, z):
            passes["forward"] += len(z)
            if z.requires_grad:
                z.register_hook(lambda _: passes.update(backward=passes["backward"] + len(z)))
            return cnn(z)

    PGD(Linf(0.1), steps=5, restarts=restarts, early_stop=False)(Counting().eval(), x, y, generator=seed(0))
    assert passes == {"forward": 6 * len(x) * restarts, "backward": 5 * len(x) * restarts}


@pytest.mark.parametrize("loss", [CrossEntropy(), KullbackLeibler()], ids=repr)
def test_to_the_end_returns_the_highest_loss(loss, cnn, sample, seed):
    """Higher than at the start for every row, for TRADES's divergence from the clean answer too."""
    x, y = sample
    if isinstance(loss, KullbackLeibler):
        with torch.no_grad():
            y = cnn(x).softmax(1)
    attack = PGD(Linf(0.1), steps=10, step_size=0.25, loss=loss, early_stop=False)
    with torch.no_grad():
        start = loss(cnn(x + attack.ball.sample(x, seed(0))), y)
        end = loss(cnn(attack(cnn, x, y, generator=seed(0))), y)
    assert (end >= start - 1e-5).all()
    assert end.mean() > 3 * start.mean()


def test_adversarial_training_calls_it_on_a_frozen_model(cnn, sample, seed):
    """Inside `frozen` the door is open to a model in training, which stays in training afterwards."""
    x, y = sample
    cnn.train()
    try:
        with frozen(cnn):
            PGD(Linf(0.1), steps=2, early_stop=False)(cnn, x, y, generator=seed(0))
        assert all(module.training for module in cnn.modules())
    finally:
        cnn.eval()


@pytest.mark.parametrize("early_stop", [True, False])
def test_targeted_attack_reaches_its_target(early_stop, cnn, sample, seed):
    """With room enough, nearly every digit becomes the next one."""
    x, y = sample
    target = (y + 1) % 10
    attack = PGD(Linf(0.35), goal=Targeted(), early_stop=early_stop)
    assert (cnn(attack(cnn, x, target, generator=seed(0))).argmax(1) == target).double().mean() > 0.95
