"""Robust pruning: which weights are pruned is learned under attack."""

import math
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.compression.magnitude import check_share, fine_tune, prunable_layers
from aisec_lab.models import Fit, Objective, copied, refuse_computed


class Subnetwork(nn.Module):
    """A parametrisation that keeps the weights with the highest scores; all scores get a gradient.

    Args:
        weight: to be pruned; the scores start proportional to it (Sehwag et al., 2020, arXiv:2002.10509, section 4).
        kept: how many weights stay.
    """

    def __init__(self, weight: Tensor, kept: int) -> None:
        super().__init__()
        weight = weight.detach()
        width = math.sqrt(6 / weight[0].numel())  # of He et al.'s uniform initialisation
        self.scores = nn.Parameter(width * weight / weight.abs().max().clamp(min=torch.finfo(weight.dtype).tiny))
        self.kept = kept

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, zero where its score is not among the `kept` highest in absolute value."""
        importance = self.scores.abs()
        mask = torch.zeros_like(weight).flatten()
        mask[importance.detach().flatten().argsort(descending=True, stable=True)[: self.kept]] = 1
        return weight * (mask.view_as(weight) + (importance - importance.detach()))  # straight-through gradient


@dataclass(frozen=True)
class HYDRA:
    """HYDRA: learn which weights matter under attack, and fine-tune those (Sehwag et al., 2020, arXiv:2002.10509).

    First the weights are frozen and a score for each weight is trained (eq. 3), where only the weights with the highest
    scores of every layer are active. Then the scores are frozen and the remaining weights are trained. Call contract:
    docs/defenses.md, "Compression"; the network keeps its shape.

    Args:
        objective: of both trainings, such as `AdversarialTraining`.
        sparsity: share of the weights of each layer that is zero at the end, in (0, 1).
        scoring: training loop of the scores, without weight decay; None keeps the initial scores, which prunes by
            magnitude.
        fit: training loop of the weights afterwards; None for no training.
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
            fine_tune(pruned, self.fit, data, self.objective, generator=generator)
        return pruned
