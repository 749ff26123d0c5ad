"""Magnitude pruning: small weights become zero, and the others learn to do without them."""

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.backdoors.pruning import masked_gradient
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, copied, refuse_computed
from aisec_lab.models.quantised import Quantised

TINY = 1e-12  # keeps a layer of equal weights from dividing by zero


def prunable_layers(model: nn.Module) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """The weights that pruning is about: all parameters of two dimensions or more, but those of norms.

    So those of linear, convolutional, recurrent, attention and embedding layers, and a module's own; biases and scales
    are vectors.

    Returns:
        Each once, in the model's order, with the modules that hold it and its name there.

    Raises:
        ValueError: there are none, or some are rounded to whole numbers already.
    """
    found: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for layer in model.modules():
        if isinstance(layer, Quantised):
            raise ValueError(f"{type(model).__name__} has rounded weights already: prune before quantising")
        for name, weight in layer.named_parameters(recurse=False):
            if weight.ndim > 1 and not isinstance(layer, nn.LayerNorm | nn.RMSNorm):
                found.setdefault(weight, []).append((layer, name))
    if not found:
        raise ValueError(f"{type(model).__name__} has no weights of two dimensions or more: there is nothing to prune")
    return found


def sparsity(model: nn.Module) -> float:
    """The share of zeros among the weights of `prunable_layers`."""
    weights = list(prunable_layers(model))
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def check_share(share: float, name: str) -> None:
    """Refuse, with a ValueError, what is no share of weights that may go."""
    if not 0 < share < 1:
        raise ValueError(f"{name} is the share that goes, above 0 and below 1, got {share}: try 0.8")


def retrained(model: nn.Module, fit: Fit, data: Dataset, objective: Objective, *, generator: torch.Generator) -> None:
    """Train a pruned model in place; its weights of zero stay zero."""
    with ExitStack() as stack:
        for weight in prunable_layers(model):
            stack.enter_context(masked_gradient(weight, (weight != 0).detach()))
        fit(model, data, objective, generator=generator)


@dataclass(frozen=True)
class MagnitudePruning:
    """Set the smallest weights to zero and train the rest, in rounds (Han et al., 2015, arXiv:1506.02626, section 3).

    A weight is small beside the standard deviation of its layer's weights: all layers share one threshold in these
    units. Each round leaves the same share of what the one before left. Layers of all kinds are pruned, frozen ones
    too, which are not trained afterwards; biases and norms stay (`prunable_layers`).

    Args:
        sparsity: share of the weights that is zero in the end.
        rounds: of pruning and training.
        fit: the training of each round; None for pruning alone.
        objective: what that training minimises.

    Args of the call, returns: as for `Compression`; the model keeps its shape.

    Raises:
        ValueError: settings that cannot be, a model without weights; what an attack refuses of a model and its inputs.
    """

    sparsity: float = 0.9
    rounds: int = 3
    fit: Fit | None = Fit(epochs=5)
    objective: Objective = Standard()

    def __post_init__(self) -> None:
        check_share(self.sparsity, "sparsity")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check(model, data.x, data.y)
        refuse_computed(model)
        pruned = copied(model)
        for done in range(1, self.rounds + 1):
            self._cut(pruned, 1 - (1 - self.sparsity) ** (done / self.rounds))
            if self.fit is not None:
                retrained(pruned, self.fit, data, self.objective, generator=generator)
        return pruned

    def _cut(self, model: nn.Module, share: float) -> None:
        """Set to zero, in place, the given share of the weights."""
        weights = [weight.detach() for weight in prunable_layers(model)]  # views of the model's own
        size = torch.cat([(weight / _spread(weight)).abs().flatten() for weight in weights])
        small = torch.zeros_like(size, dtype=torch.bool)
        small[size.argsort(stable=True)[: round(share * len(size))]] = True
        for weight, gone in zip(weights, small.split([weight.numel() for weight in weights]), strict=True):
            weight[gone.view_as(weight)] = 0


def _spread(weight: Tensor) -> Tensor:
    """The standard deviation of the weights that are left."""
    return weight[weight != 0].std(correction=0).nan_to_num().clamp(min=TINY)
