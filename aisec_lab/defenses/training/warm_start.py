"""Standard training first: from random weights an adversary may leave an objective nothing to learn."""

from dataclasses import dataclass, replace

from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Objective, TrainingJob, TrainingRecipe, concatenate_records


@dataclass(frozen=True)
class WarmStart(TrainingRecipe):
    """Some epochs of standard training, then all of `fit`'s under another objective.

    A network that starts from random weights under a strong attack may settle at one answer for all inputs, where the
    gradient is almost zero; from weights that already classify it does not.

    Args:
        objective: what follows.
        epochs: of standard training; a one-cycle schedule of their own.

    Args of `run`: as for `Fit`.

    Returns:
        The records of both, those of standard training first.
    """

    objective: Objective
    epochs: int = 3

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs of standard training must be positive, got {self.epochs}")

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        warmed = job.stage("warm", fit=replace(job.fit, epochs=self.epochs)).train(Standard())
        return concatenate_records(warmed, job.train(self.objective))
