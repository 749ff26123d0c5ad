"""Defensive distillation: a student learns a teacher's soft labels (Papernot et al., 2016, arXiv:1511.04508)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.models import TrainingJob, TrainingRecipe, concatenate_records, copied
from aisec_lab.models.checked import checked_model


@dataclass(frozen=True)
class DistillationLoss:
    """Cross-entropy of softmax(z / temperature) with the classes, or with a teacher's soft labels.

    Hinton et al. (2015, arXiv:1503.02531). Call contract: docs/defenses.md, "Objective"; the generator is not drawn
    from, and y is unused with a teacher.

    Args:
        temperature: divides the logits of student and teacher; positive.
        teacher: classifier, in any mode, which it keeps; None for the classes y.
    """

    temperature: float
    teacher: nn.Module | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        target = y
        if self.teacher is not None:
            with checked_model(self.teacher), torch.no_grad():
                logits = self.teacher(x)
            check_not_probabilities(logits)
            target = (logits / self.temperature).softmax(1)
        return F.cross_entropy(model(x) / self.temperature, target, reduction="none")


@dataclass(frozen=True)
class DefensiveDistillation(TrainingRecipe):
    """Train a teacher at a temperature, then a student of the same architecture on its soft labels.

    Papernot et al., 2016, section IV-B. The student is used at temperature 1. Its logits are then `temperature` times
    larger than usual, and the gradient of its cross-entropy vanishes in float32: this hides it from attacks on that
    loss, and does not make it robust to attacks on the logits (Carlini & Wagner, 2017, arXiv:1608.04644, section VIII).
    Call contract: docs/defenses.md, "Training recipe"; student and teacher start from the same weights. The teacher's
    records come first; its passes for the student's soft labels are not counted.

    Args:
        temperature: of both trainings; positive.
    """

    temperature: float = 20.0

    def __post_init__(self) -> None:
        DistillationLoss(self.temperature)  # raises for a temperature out of range

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        teacher = copied(job.model)
        first = job.stage("teacher", model=teacher).train(DistillationLoss(self.temperature))
        return concatenate_records(first, job.train(DistillationLoss(self.temperature, teacher)))
