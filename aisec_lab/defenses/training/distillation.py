"""Defensive distillation: a student that learns a teacher's soft answers (Papernot et al., 2016, arXiv:1511.04508)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.models import TrainingJob, TrainingRecipe, concatenate_records, copied
from aisec_lab.models.asked import asked


@dataclass(frozen=True)
class DistillationLoss:
    """Cross-entropy of softmax(z / temperature), with the classes or with a teacher's answers at that temperature.

    Args of the call: as for `Standard`.
    """

    temperature: float
    teacher: nn.Module | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        target = y
        if self.teacher is not None:
            with asked(self.teacher), torch.no_grad():
                logits = self.teacher(x)
            check_not_probabilities(logits)
            target = (logits / self.temperature).softmax(1)
        return F.cross_entropy(model(x) / self.temperature, target, reduction="none")


@dataclass(frozen=True)
class DefensiveDistillation(TrainingRecipe):
    """Train a teacher at a temperature, then a student of the same shape on its soft answers, and use that at 1.

    Papernot et al., 2016, section IV-B. The student's logits are `temperature` times larger than usual, so that the
    gradient of its cross-entropy vanishes in float32: it hides from attacks on that loss and resists none on the
    logits (Carlini & Wagner, 2017, arXiv:1608.04644, section VIII).

    Args of `run`: as for `Fit`; `model`, the student, begins with the weights that its teacher began with.

    Returns:
        The records of both, the teacher's first; the student's passes are its own, without the teacher's answers.
    """

    temperature: float = 20.0

    def __post_init__(self) -> None:
        DistillationLoss(self.temperature)  # refuses what makes no sense

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        teacher = copied(job.model)
        taught = job.stage("teacher", model=teacher).train(DistillationLoss(self.temperature))
        learned = job.train(DistillationLoss(self.temperature, teacher))
        return concatenate_records(taught, learned)
