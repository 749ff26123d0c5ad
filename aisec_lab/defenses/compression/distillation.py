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
    """Train a smaller network on the answers of the large one, softened by a temperature (Hinton et al., 2015).

    arXiv:1503.02531, section 2, with the soft answers alone.

    Args:
        architecture: of the student.
        fit: its training.
        temperature: divides the logits of both.

    Args of the call, returns: as for `Compression`; the classes of the data are not looked at.

    Raises:
        ValueError: a temperature that is not positive; what the architecture refuses of the inputs' shape; what an
            attack refuses of a model and its inputs.
    """

    architecture: Architecture = CNN(width=8, hidden=32)
    fit: Fit = Fit(epochs=20)
    temperature: float = 4.0

    def __post_init__(self) -> None:
        DistillationLoss(self.temperature)  # refuses what makes no sense

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check(model, data.x, data.y)
        classes = logits_of(model, data.x[:1]).shape[1]
        student = self.architecture(data.shape, classes, generator=generator).to(data.x.device)
        self.fit(student, data, DistillationLoss(self.temperature, model), generator=generator)
        return student
