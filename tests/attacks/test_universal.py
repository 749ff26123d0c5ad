"""Universal perturbations: learned on some rows, used on others."""

from dataclasses import replace

import pytest
import torch

from aisec_lab.attacks import L1, L2, Linf, Universal
from aisec_lab.data import Dataset


@pytest.fixture
def train(digits):
    x, y = digits
    return Dataset(x[200:], y[200:], tuple("0123456789"), "digits")


@pytest.mark.parametrize(("ball", "tolerance"), [(Linf(0.1), 0), (L2(0.3), 1e-5)], ids=repr)
def test_on_a_linear_model_it_is_the_steepest_direction(ball, tolerance, linear, seed):
    """Towards class 1: eps sign(w1 - w0), or eps (w1 - w0) over its length."""
    x = 0.4 + 0.2 * torch.rand(50, 12, generator=seed(1))
    model = linear(12).float()
    slope = (model[1].weight[1] - model[1].weight[0]).detach()
    expected = ball.eps * (slope.sign() if tolerance == 0 else slope / slope.norm())
    learn = Universal(ball, batch_size=20, target=1)
    train = Dataset(x, torch.zeros(50, dtype=torch.int64), ("a", "b"), "toy")
    attack = learn(train, model=model, generator=seed(0))
    assert torch.allclose(attack.delta, expected, atol=tolerance, rtol=0)
    assert torch.allclose(attack(model, x, train.y, generator=seed(0)), x + expected, atol=1e-5)


@pytest.mark.parametrize("ball", [Linf(0.2), L2(1.5), L1(8.0)], ids=repr)
def test_it_fools_rows_that_it_has_not_seen(ball, cnn, sample, train, seed):
    """More than twice as many as a random perturbation of the ball's size does; and it is one for all."""
    x, y = sample
    attack = Universal(ball)(train, model=cnn, generator=seed(0))
    noise = ball.ascent_direction(torch.randn(x[:1].shape, generator=seed(0)))
    noise = ball.eps * noise / ball.norm(noise)
    x_adv = attack(cnn, x, y, generator=seed(0))
    errors = [(cnn(z).argmax(1) != y).double().mean() for z in (x, (x + noise).clamp(0, 1), x_adv)]
    assert errors[2] > 0.1 + 2 * errors[1]
    assert (ball.norm(x_adv - x) <= ball.eps * (1 + 1e-6)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert torch.allclose(x_adv, (x + attack.delta).clamp(0, 1))
    assert torch.equal(attack.delta, Universal(ball)(train, model=cnn, generator=seed(0)).delta)


def test_a_smaller_ball_takes_the_projection(cnn, sample, train, seed):
    """As a security curve asks for."""
    attack = replace(Universal(Linf(0.2), epochs=1)(train, model=cnn, generator=seed(0)), ball=Linf(0.05))
    x, y = sample
    moved = attack(cnn, x, y, generator=seed(0)) - x
    assert moved.abs().max() == pytest.approx(0.05)


def test_what_is_wrong_is_refused(cnn, train, seed):
    """Settings, and a class that the model does not have."""
    for settings in ({"epochs": 0}, {"batch_size": 0}, {"step_size": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            Universal(Linf(0.1), **settings)
    more = Dataset(train.x, train.y + 5, tuple(range(20)), "more")
    with pytest.raises(ValueError, match=r"0\.\.9, the model's"):
        Universal(Linf(0.1))(more, model=cnn, generator=seed(0))
