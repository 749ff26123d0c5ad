"""Magnitude pruning: the smallest weights become zero, and the others are fine-tuned."""

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
    """The weights that can be pruned: all parameters of two dimensions or more, except those of norms.

    These are the weights of linear, convolutional, recurrent, attention and embedding layers, and of custom modules.

    Args:
        model: any network.

    Returns:
        Each weight once, in the model's order, with the modules that hold it and its name there.

    Raises:
        ValueError: there is none, or the model is quantised already.
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
    """The share of zeros among a model's prunable weights (`prunable_layers`), in [0, 1]."""
    weights = list(prunable_layers(model))
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def check_share(share: float, name: str) -> None:
    """Check a share of weights or channels to prune.

    Args:
        share: in (0, 1).
        name: of the setting, for the message.

    Raises:
        ValueError: a share out of range.
    """
    if not 0 < share < 1:
        raise ValueError(f"{name} is the share that goes, above 0 and below 1, got {share}: try 0.8")


def fine_tune(model: nn.Module, fit: Fit, data: Dataset, objective: Objective, *, generator: torch.Generator) -> None:
    """Train a pruned model in place; weights that are zero stay zero.

    Args:
        model: pruned classifier.
        fit: training loop.
        data: training rows.
        objective: its loss is minimised.
        generator: source of all randomness.
    """
    with ExitStack() as stack:
        for weight in prunable_layers(model):
            stack.enter_context(masked_gradient(weight, (weight != 0).detach()))
        fit(model, data, objective, generator=generator)


@dataclass(frozen=True)
class MagnitudePruning:
    """Iteratively set the smallest weights to zero and fine-tune (Han et al., 2015, arXiv:1506.02626, section 3).

    Weights are measured in units of the standard deviation of their layer's weights, and all layers share one threshold
    in these units. Each round keeps the same share of the weights that are left. Frozen layers are pruned too, and not
    trained afterwards; biases and norms stay (`prunable_layers`). Call contract: docs/defenses.md, "Compression"; the
    network keeps its shape.

    Args:
        sparsity: share of the weights that is zero at the end, in (0, 1).
        rounds: of pruning and fine-tuning, at least 1.
        fit: training loop of each round; None for pruning alone.
        objective: what fine-tuning minimises.
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
            self._prune(pruned, 1 - (1 - self.sparsity) ** (done / self.rounds))
            if self.fit is not None:
                fine_tune(pruned, self.fit, data, self.objective, generator=generator)
        return pruned

    def _prune(self, model: nn.Module, share: float) -> None:
        """Set the smallest weights, this share of all, to zero in place."""
        weights = [weight.detach() for weight in prunable_layers(model)]  # views of the model's own
        size = torch.cat([(weight / _spread(weight)).abs().flatten() for weight in weights])
        small = torch.zeros_like(size, dtype=torch.bool)
        small[size.argsort(stable=True)[: round(share * len(size))]] = True
        for weight, gone in zip(weights, small.split([weight.numel() for weight in weights]), strict=True):
            weight[gone.view_as(weight)] = 0


def _spread(weight: Tensor) -> Tensor:
    """The standard deviation of the weights that are not zero."""
    return weight[weight != 0].std(correction=0).nan_to_num().clamp(min=TINY)
