"""Distillation into a smaller network."""

from dataclasses import dataclass

import torch
from torch import nn

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.training.distillation import DistillationLoss
from aisec_lab.models import CNN, Architecture, Fit, logits_of


@dataclass(frozen=True)
class KnowledgeDistillation:
    """Train a smaller network on the soft labels of a large one (Hinton et al., 2015, arXiv:1503.02531, section 2).

    The loss uses soft labels alone. Call contract: docs/defenses.md, "Compression"; the true classes are unused.

    Args:
        architecture: of the student.
        fit: training loop of the student.
        temperature: divides the logits of both; positive.
    """

    architecture: Architecture = CNN(width=8, hidden=32)
    fit: Fit = Fit(epochs=20)
    temperature: float = 4.0

    def __post_init__(self) -> None:
        DistillationLoss(self.temperature)  # raises for a temperature out of range

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check(model, data.x, data.y)
        classes = logits_of(model, data.x[:1]).shape[1]
        student = self.architecture(data.shape, classes, generator=generator).to(data.x.device)
        self.fit(student, data, DistillationLoss(self.temperature, model), generator=generator)
        return student
