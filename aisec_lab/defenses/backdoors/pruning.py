"""Fine-pruning: a backdoor uses units that are inactive on clean rows, so prune these."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from aisec_lab.core.validation import check_inputs
from aisec_lab.data import Dataset
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, called_layers, copied, logits_of, refuse_computed
from aisec_lab.models.checked import checked_model

BATCH = 500  # clean rows in one forward pass
READING_LAYERS = (nn.Linear, _ConvNd, nn.RNNBase, nn.MultiheadAttention)  # they take the outputs of another layer


class Repair(Protocol):
    """Removal of a backdoor from a model: a frozen dataclass of settings that is called.

    Call contract: docs/backdoor-defenses.md, "Repairs".
    """

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> nn.Module:
        """Repair a classifier.

        Args:
            model: classifier in evaluation mode. It is not changed.
            clean: rows that are known to be clean, with their true classes, on the model's device.
            generator: source of all randomness.

        Returns:
            A repaired copy, in evaluation mode.

        Raises:
            ValueError: inputs outside [0, 1], classes that the model does not have, or a model in training mode.
        """
        ...


def accuracy(model: nn.Module, clean: Dataset) -> float:
    """The share of rows that a model classifies correctly."""
    return (logits_of(model, clean.x).argmax(1) == clean.y.cpu()).double().mean().item()


def layer_to_prune(model: nn.Module, x: Tensor) -> tuple[nn.Linear, int]:
    """Find the linear layer whose inputs are pruned: the one after the last convolution, else the last layer.

    Layers count in the order in which a forward pass over x (N, *input) calls them.

    Returns:
        The layer, and the number of units before it: the channels of the convolution (flattening makes several
        neighbouring inputs of each), or, without a convolution, the inputs themselves.

    Raises:
        ValueError: a model without such a layer.
    """
    layers = called_layers(model, x[:1], READING_LAYERS)
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
    """Mean absolute activation (units,), on inputs (N, *input), of the units before the layer of `layer_to_prune`."""
    layer, units = layer_to_prune(model, x)
    sums: list[Tensor] = []
    with (
        checked_model(model),
        torch.no_grad(),
        layer.register_forward_pre_hook(lambda _, args: sums.append(args[0].abs().flatten(0, -2).sum(0))),
    ):
        for batch in x.split(BATCH):
            model(batch)
    return torch.stack(sums).sum(0).view(units, -1).mean(1) / len(x)


@contextmanager
def masked_gradient(weight: Tensor, kept: Tensor) -> Iterator[None]:
    """Mask the gradient of a weight: entries where `kept`, of its shape, is False stay as they are in training."""
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
    """Prune units that are inactive on clean rows, then fine-tune (Liu et al., 2018, arXiv:1805.12185, section 3).

    Units are the channels of the last convolution or, without a convolution, the inputs of the last layer. They are
    pruned one after another, the least active first, until accuracy on the clean rows would fall by more than `cap`.
    The weights that read a pruned unit are set to zero, and stay zero during fine-tuning.

    Call contract: docs/backdoor-defenses.md, "Repairs".

    Args:
        cap: how much accuracy on the clean rows pruning may cost, in [0, 1). Fine-tuning regains most of it.
        fit: the fine-tuning; None for pruning alone.

    Raises:
        ValueError: a cap out of range, or a model without a linear layer after its last convolution.
    """

    cap: float = 0.04
    fit: Fit | None = Fit(epochs=20, learning_rate=0.003)

    def __post_init__(self) -> None:
        if not 0 <= self.cap < 1:
            raise ValueError(f"cap is a share of accuracy, from 0 to below 1, got {self.cap}")

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> nn.Module:
        check_inputs(model, clean.x, clean.y)
        refuse_computed(model)
        repaired = copied(model)
        layer, units = layer_to_prune(repaired, clean.x)
        columns = layer.weight.detach().view(len(layer.weight), units, -1)  # a view: pruning it prunes the layer
        order, least = activity(repaired, clean.x).argsort(), accuracy(repaired, clean) - self.cap
        for unit in order.tolist():
            before = columns[:, unit].clone()
            columns[:, unit] = 0
            if accuracy(repaired, clean) < least:
                columns[:, unit] = before
                break
        if self.fit is not None:
            with masked_gradient(layer.weight, (layer.weight != 0).detach()):
                self.fit(repaired, clean, Standard(), generator=generator)
        return repaired
