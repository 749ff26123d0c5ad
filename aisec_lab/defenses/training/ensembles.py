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
    """Several classifiers that answer together.

    Args:
        members: into the same classes; the mode is that of the first.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError(f"{type(self).__name__} has at least one member, got none")
        self.members = nn.ModuleList(members)
        self.training = self.members.training = trains(members[0])


class AveragedModel(EnsembleMembers):
    """The logarithm of the mean of the members' probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *input)."""
        logits = torch.stack([member(x) for member in self.members])  # (members, N, K)
        for answers in logits:
            check_not_probabilities(answers)
        return logits.log_softmax(2).logsumexp(0) - math.log(len(self.members))


@dataclass(frozen=True)
class Ensemble:
    """The model together with models of other architectures, trained here (Strauss et al., 2017, arXiv:1709.03423).

    Args:
        architectures: of the other members.
        fit, objective: how they are trained.
        seed: of their weights and of the order of rows.

    Args of the call:
        model: the first member, a classifier.
        data: the splits; the others learn from `data.train`.

    Returns:
        A classifier, in the mode of `model`.

    Raises:
        ValueError: no data.
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
