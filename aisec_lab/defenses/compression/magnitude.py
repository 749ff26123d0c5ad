"""Magnitude pruning: small weights become zero, and the others learn to do without them."""

import copy
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.door import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.backdoors.pruning import held
from aisec_lab.defenses.training import Standard
from aisec_lab.models import Fit, Objective, refuse_computed

TINY = 1e-12  # keeps a layer of equal weights from dividing by zero


def weighty(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """The linear and convolutional layers of a model, in its order.

    Raises:
        ValueError: there are none.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no nn.Linear or nn.Conv2d to prune: prune before quantising")
    return layers


def sparsity(model: nn.Module) -> float:
    """The share of zeros among the weights of linear and convolutional layers."""
    weights = [layer.weight for layer in weighty(model)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def check_share(share: float, name: str) -> None:
    """Refuse, with a ValueError, what is no share of weights that may go."""
    if not 0 < share < 1:
        raise ValueError(f"{name} is the share that goes, above 0 and below 1, got {share}: try 0.8")


def retrained(model: nn.Module, fit: Fit, data: Dataset, objective: Objective, *, generator: torch.Generator) -> None:
    """Train a pruned model in place; its weights of zero stay zero."""
    with ExitStack() as stack:
        for layer in weighty(model):
            stack.enter_context(held(layer.weight, (layer.weight != 0).detach()))
        fit(model, data, objective, generator=generator)


@dataclass(frozen=True)
class MagnitudePruning:
    """Set the smallest weights to zero and train the rest, in rounds (Han et al., 2015, arXiv:1506.02626, section 3).

    A weight is small beside the standard deviation of its layer's weights: all layers share one threshold in these
    units. Each round leaves the same share of what the one before left. Biases and norms stay.

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
        pruned = copy.deepcopy(model)
        for done in range(1, self.rounds + 1):
            self._cut(pruned, 1 - (1 - self.sparsity) ** (done / self.rounds))
            if self.fit is not None:
                retrained(pruned, self.fit, data, self.objective, generator=generator)
        return pruned

    def _cut(self, model: nn.Module, share: float) -> None:
        """Set to zero, in place, the given share of the weights."""
        weights = [layer.weight.detach() for layer in weighty(model)]  # views of the model's own
        size = torch.cat([(weight / _spread(weight)).abs().flatten() for weight in weights])
        small = torch.zeros_like(size, dtype=torch.bool)
        small[size.argsort(stable=True)[: round(share * len(size))]] = True
        for weight, gone in zip(weights, small.split([weight.numel() for weight in weights]), strict=True):
            weight[gone.view_as(weight)] = 0


def _spread(weight: Tensor) -> Tensor:
    """The standard deviation of the weights that are left."""
    return weight[weight != 0].std(correction=0).nan_to_num().clamp(min=TINY)
