"""Fine-pruning: a backdoor lives in units that clean rows do not use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, called, copied, logits_of, refuse_computed
from aisec_lab.models.asked import asked

BATCH = 500  # rows a pass, when clean rows are looked at
READERS = (nn.Linear, _ConvNd, nn.RNNBase, nn.MultiheadAttention)  # what reads the units of a layer before it


class Repair(Protocol):
    """Settings of a repair."""

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> nn.Module:
        """A repaired copy of a classifier, in evaluation mode; the model that is handed over stays as it is.

        Args:
            model: classifier in evaluation mode.
            clean: rows that are known to be clean and the classes that they should have, on the model's device.
            generator: source of all randomness.
        """
        ...


def right(model: nn.Module, clean: Dataset) -> float:
    """The share of rows that a model answers as it should."""
    return (logits_of(model, clean.x).argmax(1) == clean.y.cpu()).double().mean().item()


def readout(model: nn.Module, x: Tensor) -> tuple[nn.Linear, int]:
    """The linear layer that reads the last convolution, else the last one; and how many units feed it.

    Units are the convolution's channels, each with the neighbouring inputs that flattening made of it, or, without a
    convolution, the inputs themselves, as another layer gives them. Layers count in the order in which a pass over
    x (N, *input) calls them.

    Raises:
        ValueError: a model in which nothing of this kind is found.
    """
    layers = called(model, x[:1], READERS)
    last = max((place for place, layer in enumerate(layers) if isinstance(layer, _ConvNd)), default=len(layers) - 2)
    reading = layers[last + 1] if 0 <= last < len(layers) - 1 else None
    if not isinstance(reading, nn.Linear):
        raise ValueError(f"{type(model).__name__} has no nn.Linear behind its last convolution: nothing to prune")
    before = layers[last]
    units = before.out_channels if isinstance(before, _ConvNd) else reading.in_features
    if reading.in_features % units:
        raise ValueError(
            f"{units} channels do not divide the {reading.in_features} inputs of the layer that reads them"
        )
    return reading, units


def activity(model: nn.Module, x: Tensor) -> Tensor:
    """How strongly each unit that feeds `readout` answers to inputs (N, *input), on average: shape (units,)."""
    layer, units = readout(model, x)
    sums: list[Tensor] = []
    with (
        asked(model),
        torch.no_grad(),
        layer.register_forward_pre_hook(lambda _, args: sums.append(args[0].abs().flatten(0, -2).sum(0))),
    ):
        for batch in x.split(BATCH):
            model(batch)
    return torch.stack(sums).sum(0).view(units, -1).mean(1) / len(x)


@contextmanager
def held(weight: Tensor, kept: Tensor) -> Iterator[None]:
    """A weight whose entries outside `kept`, of its shape, get no gradient: where they are zero they stay zero."""
    if not weight.requires_grad:  # a frozen one gets no gradient anyway
        yield
        return
    hook = weight.register_hook(lambda grad: grad * kept)
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class FinePruning:
    """Prune the units that sleep on clean rows, then train on these (Liu et al., 2018, arXiv:1805.12185, section 3).

    The channels of the last convolution, or, without one, the inputs of the last layer, are cut off one after another,
    the least active first, as long as accuracy on the clean rows does not fall by more than `cap`. Whoever reads them
    gets weights of zero, which stay so while the rest is trained.

    Args:
        cap: how much accuracy on the clean rows pruning may cost; training afterwards brings most of it back.
        fit: the training afterwards; None for pruning alone.

    Args of the call, returns: as for `Repair`.

    Raises:
        ValueError: a model without such a layer; what an attack refuses of a model and its inputs.
    """

    cap: float = 0.04
    fit: Fit | None = Fit(epochs=20, learning_rate=0.003)

    def __post_init__(self) -> None:
        if not 0 <= self.cap < 1:
            raise ValueError(f"cap is a share of accuracy, from 0 to below 1, got {self.cap}")

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> nn.Module:
        check(model, clean.x, clean.y)
        refuse_computed(model)
        repaired = copied(model)
        layer, units = readout(repaired, clean.x)
        columns = layer.weight.detach().view(len(layer.weight), units, -1)  # a view: pruning it prunes the layer
        order, least = activity(repaired, clean.x).argsort(), right(repaired, clean) - self.cap
        for unit in order.tolist():
            before = columns[:, unit].clone()
            columns[:, unit] = 0
            if right(repaired, clean) < least:
                columns[:, unit] = before
                break
        if self.fit is not None:
            with held(layer.weight, (layer.weight != 0).detach()):
                self.fit(repaired, clean, Standard(), generator=generator)
        return repaired
