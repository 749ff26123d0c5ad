"""Architectures, the way attacks look at them, and the count of passes."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from aisec_lab.models import CNN, MLP, Architecture, Normalised, PassCounter, ResNet, frozen, logits_of, seeded


class Case(NamedTuple):
    architecture: Architecture
    shape: tuple[int, ...]


CASES = [
    Case(CNN(), (1, 8, 8)),
    Case(CNN(width=8), (3, 32, 32)),
    Case(CNN(width=8), (1, 13, 28)),
    Case(MLP(hidden=(16,)), (30,)),
    Case(MLP(), (1, 8, 8)),
    Case(ResNet(n=1, width=8), (3, 32, 32)),
]


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_weights_come_from_the_generator_alone(case: Case) -> None:
    """The same seed gives the same network whatever the global generator is at; another seed gives another."""
    x = torch.rand(4, *case.shape, generator=seed(0))
    torch.rand(17)
    outputs = [case.architecture(case.shape, 5, generator=seed(s)).eval()(x) for s in (1, 1, 2)]
    assert outputs[0].shape == (4, 5)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_a_row_does_not_see_its_batch(case: Case) -> None:
    """With GroupNorm an example's logits depend on itself only, in training mode too: what DP needs."""
    model = case.architecture(case.shape, 3, generator=seed(0)).double().train()
    x = torch.rand(6, *case.shape, dtype=torch.float64, generator=seed(1))
    alone = torch.cat([model(row[None]) for row in x])
    torch.testing.assert_close(model(x), alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("architecture", "shape"), [(CNN(), (30,)), (CNN(), (1, 7, 8)), (ResNet(), (3, 8, 8))], ids=repr
)
def test_a_shape_that_does_not_fit_is_refused(architecture: Architecture, shape: tuple[int, ...]) -> None:
    """The message names what was given and what would take it."""
    with pytest.raises(ValueError, match=r"takes images .* got shape .*: use MLP"):
        architecture(shape, 10, generator=seed(0))


def test_normalisation_is_affine_in_each_channel() -> None:
    """(x - mean) / std by channel, for images and for tables."""
    x = torch.rand(2, 3, 4, 4, generator=seed(0))
    images = Normalised([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])(x)
    torch.testing.assert_close(images[:, 2], (x[:, 2] - 0.3) / 4)
    torch.testing.assert_close(Normalised([0.5] * 3, 0.5)(x[:, :, 0, 0]), 2 * x[:, :, 0, 0] - 1)


def test_frozen_restores_all_it_touches() -> None:
    """Inside: evaluation mode, no parameter gradients. Outside: as before, after an error too; hooks run always."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2)).train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("hook"))

    def state() -> list[object]:
        return [m.training for m in model.modules()] + [p.requires_grad for p in model.parameters()]

    before = state()
    with pytest.raises(RuntimeError, match="inside"), frozen(model):
        assert not any(state())
        model(torch.rand(1, 3))
        raise RuntimeError("inside")
    assert state() == before
    model(torch.rand(1, 3))
    assert calls == ["hook"] * 2


def test_seeded_binds_and_gives_back_the_generator() -> None:
    """A randomised part draws from the bound generator, and only as long as it is bound."""

    class Noisy(nn.Module):
        generator: torch.Generator | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn(x.shape, generator=self.generator)

    model = nn.Sequential(Noisy(), nn.Flatten())
    outputs = []
    for s in (3, 3, 4):
        with seeded(model, seed(s)):
            outputs.append(model(torch.zeros(2, 2)))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert model[0].generator is None


def test_passes_are_counted_by_row() -> None:
    """Forward passes always, backward passes where a gradient flows."""
    counted = PassCounter(CNN(width=4)((1, 8, 8), 10, generator=seed(0)))
    x = torch.rand(7, 1, 8, 8, requires_grad=True)
    counted(x).sum().backward()
    with torch.no_grad():
        counted(x[:3])
    assert (counted.forward_passes, counted.backward_passes) == (10, 7)


def test_logits_of_leaves_the_mode_and_keeps_the_order() -> None:
    """Batch by batch is the same as at once, up to float32, and training mode is given back."""
    model = MLP()((30,), 2, generator=seed(0)).train()
    x = torch.rand(23, 30, generator=seed(1))
    torch.testing.assert_close(logits_of(model, x, batch_size=5), model(x).detach())
    assert model.training
