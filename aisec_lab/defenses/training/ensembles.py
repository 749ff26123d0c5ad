"""Ensembles of several architectures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.data import Splits
from aisec_lab.models import Architecture, Fit, Objective, TrainingRecipe, device_of
from aisec_lab.models.contexts import trains


class EnsembleMembers(nn.Module):
    """Base class of classifiers that combine the predictions of several.

    Args:
        members: classifiers of the same K classes, at least one; the ensemble has the mode of the first.

    Raises:
        ValueError: no member.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError(f"{type(self).__name__} has at least one member, got none")
        self.members = nn.ModuleList(members)
        self.training = self.members.training = trains(members[0])


class AveragedModel(EnsembleMembers):
    """The classifier with the mean of the members' probabilities.

    Args:
        members: classifiers of the same K classes, at least one; the ensemble has the mode of the first.

    Raises:
        ValueError: no member; on a call, a member that returns probabilities and not logits.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) of inputs (N, *input)."""
        logits = torch.stack([member(x) for member in self.members])  # (members, N, K)
        for answers in logits:
            check_not_probabilities(answers)
        return logits.log_softmax(2).logsumexp(0) - math.log(len(self.members))


@dataclass(frozen=True)
class Ensemble:
    """Average the model with models of other architectures (Strauss et al., 2017, arXiv:1709.03423).

    Call contract: docs/defenses.md, "Inference-time defense"; the other members are trained on `data.train`, which is
    required. It returns an `AveragedModel`.

    Args:
        architectures: of the other members.
        fit: the training loop of the other members.
        objective: what their training minimises, or a recipe.
        seed: of their weights and of the order of rows.
    """

    architectures: Sequence[Architecture]
    fit: Fit
    objective: Objective | TrainingRecipe
    seed: int = 0

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        if data is None:
            raise ValueError("Ensemble trains its other members: give it data=splits")
        train, device = data.train, device_of(model, data.train.x)
        generator = torch.Generator().manual_seed(self.seed)
        members = [model]
        for architecture in self.architectures:
            member = architecture(train.shape, len(train.classes), generator=generator).to(device)
            self.fit(member, train, self.objective, generator=generator)
            members.append(member)
        return AveragedModel(members)
