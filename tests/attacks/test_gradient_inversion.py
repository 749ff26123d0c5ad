"""Gradient inversion: exact where a closed form is, close where it is an optimum, and weaker under noise."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aisec_lab.attacks.inference.gradient_inversion import (
    GradientInversion,
    first_layer_input,
    infer_label,
    total_variation,
)
from aisec_lab.models import MLP, StridedCNN

SHAPE = (1, 8, 8)


def gradients(model, x, y):
    """Of the mean cross-entropy, as a client computes it."""
    return torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))


def network(seed, architecture=None):
    """As a client receives it: with random biases too, as after some training."""
    model = (architecture or StridedCNN())(SHAPE, 10, generator=seed(0)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1, generator=seed(1))
    return model


def error(found, x):
    """Mean squared error of each true row to the nearest of the reconstructions."""
    return torch.cdist(x.flatten(1), found.flatten(1)).amin(1).square() / x[0].numel()


def test_a_linear_layer_with_a_bias_tells_its_input(digits, seed):
    """To rounding, by any output; and by the sum of a batch of equal rows, but not of different ones."""
    x, y = digits[0][:3], digits[1][:3]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=seed(0))
    for row in range(3):
        weight, bias, *_ = gradients(model, x[row : row + 1], y[row : row + 1])
        torch.testing.assert_close(first_layer_input(weight, bias), x[row].flatten(), atol=1e-5, rtol=0)
        torch.testing.assert_close(first_layer_input(weight / 7, bias / 7), x[row].flatten(), atol=1e-5, rtol=0)
    mixed = first_layer_input(*gradients(model, x, y)[:2])
    assert (mixed - x.flatten(1)).abs().amax(1).min() > 0.1
    with pytest.raises(ValueError, match="all gradients of the bias are zero"):
        first_layer_input(torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize("last_bias", [True, False])
def test_the_class_of_a_row_is_read_off(last_bias, digits, seed):
    """Of every row, right or wrong in the model's eyes; from the bias, and from the weights alone."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10, bias=last_bias)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=seed(0))
    x, y = digits[0][:40], digits[1][:40]
    assert (model(x).argmax(1) != y).any()
    for row in range(40):
        assert infer_label(gradients(model, x[row : row + 1], y[row : row + 1])) == y[row]


def test_an_image_comes_back_from_its_gradient(digits, seed):
    """Class and pixels of single rows through convolutions, clipped or not; in the box; the same twice."""
    x, y = digits[0][:2], digits[1][:2]
    model = network(seed)
    attack = GradientInversion(steps=300, total_variation=0.001)
    for row in range(2):
        seen = gradients(model, x[row : row + 1], y[row : row + 1])
        found = attack(model, seen, shape=SHAPE, rows=1, generator=seed(0))
        assert found.y == y[row]
        assert error(found.x, x[row : row + 1]) < 0.005
        assert found.x.min() >= 0
        assert found.x.max() <= 1
        assert found.distance < 0.05
    clipped = [part / 1024 for part in seen]  # a power of two: no rounding
    again = attack(model, clipped, shape=SHAPE, rows=1, generator=seed(0))
    assert error(again.x, x[1:2]) < 0.005
    assert torch.equal(attack(model, clipped, shape=SHAPE, rows=1, generator=seed(0)).x, again.x)


def test_two_rows_come_back_and_a_table_too(digits, seed):
    """Each true row is near one of the reconstructions; noise spoils them."""
    x, y = digits[0][:2], digits[1][:2]
    model = network(seed, MLP((64,)))
    attack = GradientInversion(steps=400, total_variation=0, restarts=1)
    seen = gradients(model, x, y)
    found = attack(model, seen, y=y, shape=SHAPE, rows=2, generator=seed(0))
    assert (error(found.x, x) < 0.02).all()
    length = torch.cat([part.flatten() for part in seen]).norm()
    noisy = [part + 0.05 * length * torch.randn(part.shape, generator=seed(3)) for part in seen]
    spoiled = attack(model, noisy, y=y, shape=SHAPE, rows=2, generator=seed(0))
    assert (error(spoiled.x, x) > 0.05).all()
    table = MLP((16,))((5,), 2, generator=seed(0)).eval()
    row = torch.rand(1, 5, generator=seed(4))
    back = attack(table, gradients(table, row, torch.tensor([1])), shape=(5,), rows=1, generator=seed(0))
    assert back.y == 1
    assert error(back.x, row) < 0.001


def test_more_restarts_never_end_farther_away(digits, seed):
    """The first start is the same one, and the nearest is kept."""
    model = network(seed)
    nearer = []
    for row in range(4):
        seen = gradients(model, digits[0][row : row + 1], digits[1][row : row + 1])
        one, three = (
            GradientInversion(steps=20, restarts=n)(model, seen, shape=SHAPE, rows=1, generator=seed(0)).distance
            for n in (1, 3)
        )
        assert three <= one
        nearer.append(three < one)
    assert any(nearer)


def test_variation_of_a_step_is_known():
    """Two flat halves of 4 x 6: one of five differences across is 0.5; rows of a table have none."""
    x = torch.zeros(1, 1, 4, 6)
    x[..., 3:] = 0.5
    assert total_variation(x).item() == pytest.approx(0.5 / 5)
    assert total_variation(x.transpose(2, 3)).item() == pytest.approx(0.5 / 5)
    assert total_variation(torch.rand(3, 5)) == 0


def test_what_cannot_be_inverted_is_refused(digits, seed):
    """At the door, in one line."""
    model = network(seed)
    seen = gradients(model, digits[0][:1], digits[1][:1])
    attack = GradientInversion(steps=1)
    cases = [
        (seen[1:], {"rows": 1}, "a gradient for each parameter"),
        ([torch.zeros_like(part) for part in seen], {"rows": 1}, "not all zero"),
        ([part * float("nan") for part in seen], {"rows": 1}, "finite"),
        (seen, {"rows": 2}, "give their classes y"),
        (seen, {"rows": 1, "y": torch.tensor([10])}, "classes must lie in 0..9"),
        (seen, {"rows": 2, "y": torch.tensor([1])}, "one class for each row"),
    ]
    for given, others, message in cases:
        with pytest.raises(ValueError, match=message):
            attack(model, given, shape=SHAPE, generator=seed(0), **others)
    with pytest.raises(ValueError, match="in training mode"):
        attack(model.train(), seen, shape=SHAPE, rows=1, generator=seed(0))
    with pytest.raises(ValueError, match="must be positive"):
        GradientInversion(steps=0)
