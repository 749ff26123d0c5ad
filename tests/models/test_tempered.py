"""The bounded activation, and the network that is made of it."""

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from aisec_lab.models.tempered import TemperedCNN, TemperedSigmoid
from aisec_lab.privacy.ghost import ghost_gradients


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


class Case(NamedTuple):
    scale: float
    temperature: float
    offset: float
    x: float
    value: float


@pytest.mark.parametrize(
    "case",
    [
        Case(2, 2, 1, 0.5, math.tanh(0.5)),
        Case(1, 1, 0, 1.0, 1 / (1 + math.exp(-1))),
        Case(3, 1, 1, math.log(2), 1.0),  # sigmoid(log 2) = 2/3
        Case(2, 4, 0.5, -math.log(3) / 4, 0.0),  # sigmoid(-log 3) = 1/4
    ],
    ids=repr,
)
def test_the_activation_has_its_closed_form(case: Case) -> None:
    """By hand at one point; the slope there is temperature * (y + offset) * (1 - (y + offset) / scale)."""
    x = torch.tensor([case.x], dtype=torch.float64, requires_grad=True)
    y = TemperedSigmoid(case.scale, case.temperature, case.offset)(x)
    assert y.item() == pytest.approx(case.value, abs=1e-12)
    y.backward()
    step = case.value + case.offset
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(case.temperature * step * (1 - step / case.scale), rel=1e-9)


@given(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(-2, 2), st.floats(-50, 50))
def test_the_activation_is_bounded(scale: float, temperature: float, offset: float, x: float) -> None:
    """Between -offset and scale - offset, whatever goes in."""
    y = TemperedSigmoid(scale, temperature, offset)(torch.tensor(x, dtype=torch.float64)).item()
    assert -offset - 1e-12 <= y <= scale - offset + 1e-12


def test_it_has_the_papers_weights() -> None:
    """26,010 of them on images of 28x28: 16 * 64 + 16, 32 * 16 * 16 + 32, 512 * 32 + 32 and 32 * 10 + 10."""
    model = TemperedCNN()((1, 28, 28), 10, generator=seed(0))
    assert sum(weight.numel() for weight in model.parameters()) == 26_010


def by_hand(model: nn.Sequential, x: Tensor) -> Tensor:
    """The network of the paper's table, from patches and matrix products."""
    weights = [(layer.weight, layer.bias) for layer in model if hasattr(layer, "weight")]
    for (weight, bias), stride, padding in zip(weights[:2], (2, 2), (3, 0), strict=True):
        kernel = weight.shape[-1]
        rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:])
        patches = F.unfold(x, kernel, padding=padding, stride=stride)
        x = torch.tanh(weight.flatten(1) @ patches + bias[:, None]).unflatten(2, (rows, columns))
        x = x.unfold(2, 2, 1).unfold(3, 2, 1).amax((-2, -1))
    (first, bias), (second, offset) = weights[2:]
    return torch.tanh(x.flatten(1) @ first.T + bias) @ second.T + offset


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 14, 14), (2, 15, 27)], ids=repr)
def test_it_is_the_network_of_the_paper(shape: tuple[int, ...]) -> None:
    """Against a second implementation, for images of any size that it takes."""
    model = TemperedCNN()(shape, 7, generator=seed(0)).double()
    x = torch.rand(3, *shape, dtype=torch.float64, generator=seed(1))
    torch.testing.assert_close(model(x), by_hand(model, x), rtol=1e-9, atol=1e-12)


def test_weights_come_from_the_generator_and_keep_the_variance() -> None:
    """The same seed, the same weights; they are uniform with variance 2 / (fan in + fan out)."""
    models = [TemperedCNN()((1, 28, 28), 10, generator=seed(s)) for s in (1, 1, 2)]
    first, same, other = [nn.utils.parameters_to_vector(model.parameters()) for model in models]
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    hidden = models[0][7].weight  # 512 to 32
    assert hidden.var().item() == pytest.approx(2 / 544, rel=0.05)
    assert hidden.abs().max().item() <= math.sqrt(6 / 544)


def test_ghost_clipping_sees_each_rows_gradient() -> None:
    """The norms by book-keeping are those of autograd row by row, in the layout that the weights have in memory."""
    model = TemperedCNN()((1, 28, 28), 10, generator=seed(0))
    x, y = torch.rand(5, 1, 28, 28, generator=seed(1)), torch.arange(5)
    with ghost_gradients(model) as gradients:
        norms = gradients(lambda: F.cross_entropy(model(x), y, reduction="none")).norms.norm(dim=0)
    for row, norm in enumerate(norms):
        loss = F.cross_entropy(model(x[row : row + 1]), y[row : row + 1])
        own = torch.autograd.grad(loss, list(model.parameters()))
        assert norm.item() == pytest.approx(torch.cat([grad.flatten() for grad in own]).norm().item(), rel=1e-4)


@pytest.mark.parametrize("shape", [(30,), (1, 13, 28), (1, 28, 8)], ids=repr)
def test_a_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes images .* from 14x14 up, got shape .*: use MLP"):
        TemperedCNN()(shape, 10, generator=seed(0))


@pytest.mark.parametrize("settings", [(0.0, 1.0), (1.0, -2.0), (math.nan, 1.0)], ids=repr)
def test_a_step_without_height_is_refused(settings: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be positive, got"):
        TemperedSigmoid(*settings)
