"""Robust pruning: which weights go is learned against an adversary."""

import math
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.compression.magnitude import check_share, prunable_layers, retrained
from aisec_lab.models import Fit, Objective, copied, refuse_computed


class Subnetwork(nn.Module):
    """A parametrisation that leaves only the weights with the highest scores; the gradient goes to all scores.

    Args:
        weight: what is pruned; the scores begin proportional to it (Sehwag et al., 2020, arXiv:2002.10509, section 4).
        kept: how many weights stay.
    """

    def __init__(self, weight: Tensor, kept: int) -> None:
        super().__init__()
        weight = weight.detach()
        width = math.sqrt(6 / weight[0].numel())  # of He et al.'s uniform initialisation
        self.scores = nn.Parameter(width * weight / weight.abs().max().clamp(min=torch.finfo(weight.dtype).tiny))
        self.kept = kept

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, zero where its score is not among the `kept` highest."""
        importance = self.scores.abs()
        mask = torch.zeros_like(weight).flatten()
        mask[importance.detach().flatten().argsort(descending=True, stable=True)[: self.kept]] = 1
        return weight * (mask.view_as(weight) + (importance - importance.detach()))  # straight through to the scores


@dataclass(frozen=True)
class HYDRA:
    """HYDRA: learn which weights matter under attack, and train those (Sehwag et al., 2020, arXiv:2002.10509).

    First the weights stand still and each one's score is trained (eq. 3), the share with the highest scores of every
    layer being used; then the scores stand still and the weights that are left are trained, both under one objective.

    Args:
        objective: what the model has to stand, such as `AdversarialTraining`.
        sparsity: share of the weights of each layer that is zero in the end.
        scoring: the training of the scores, without weight decay; None leaves them where they began, which prunes by
            magnitude.
        fit: the training of the weights afterwards; None for none.

    Args of the call, returns: as for `Compression`; the model keeps its shape.

    Raises:
        ValueError: a sparsity that cannot be, a model without weights; what an attack refuses of a model and inputs.
    """

    objective: Objective
    sparsity: float = 0.9
    scoring: Fit | None = Fit(epochs=10, weight_decay=0.0)
    fit: Fit | None = Fit(epochs=10)

    def __post_init__(self) -> None:
        check_share(self.sparsity, "sparsity")
        if self.scoring is not None and self.scoring.weight_decay:
            raise ValueError(
                f"scores are learned without weight decay, got {self.scoring.weight_decay}: "
                "set scoring.weight_decay to 0"
            )

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check(model, data.x, data.y)
        refuse_computed(model)
        pruned = copied(model)
        weights, learned = prunable_layers(pruned), [each for each in pruned.parameters() if each.requires_grad]
        for weight, places in weights.items():
            chosen = Subnetwork(weight, max(1, round((1 - self.sparsity) * weight.numel())))
            for layer, name in places:
                parametrize.register_parametrization(layer, name, chosen)
        for parameter in learned:
            parameter.requires_grad_(False)
        if self.scoring is not None:
            self.scoring(pruned, data, self.objective, generator=generator)
        for layer, name in chain.from_iterable(weights.values()):
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
        for parameter in learned:
            parameter.requires_grad_(True)
        if self.fit is not None:
            retrained(pruned, self.fit, data, self.objective, generator=generator)
        return pruned
