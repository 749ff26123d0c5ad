"""Standard training before adversarial training."""

from dataclasses import dataclass, replace

from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Objective, TrainingJob, TrainingRecipe, concatenate_records


@dataclass(frozen=True)
class WarmStart(TrainingRecipe):
    """Some epochs of standard training, then all epochs of `fit` with another objective.

    Under a strong attack a network with random weights may collapse to a constant prediction, where the gradient is
    almost zero. A network that already classifies does not. Call contract: docs/defenses.md, "Training recipe"; the
    records of standard training come first.

    Args:
        objective: of the second stage.
        epochs: of standard training, at least 1; they have their own one-cycle schedule.
    """

    objective: Objective
    epochs: int = 3

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs of standard training must be positive, got {self.epochs}")

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        warmed = job.stage("warm", fit=replace(job.fit, epochs=self.epochs)).train(Standard())
        return concatenate_records(warmed, job.train(self.objective))
