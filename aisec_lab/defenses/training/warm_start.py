"""Standard training first: from random weights an adversary may leave an objective nothing to learn."""

import os
from dataclasses import dataclass, replace

import torch
from torch import nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, TrainingRecipe, concatenate_records


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

    def run(
        self,
        fit: Fit,
        model: nn.Module,
        dataset: Dataset,
        *,
        generator: torch.Generator,
        resume: str | os.PathLike[str] | None,
    ) -> list[dict[str, float]]:
        before = None if resume is None else f"{os.fspath(resume)}.warm"
        warmed = replace(fit, epochs=self.epochs)(model, dataset, Standard(), generator=generator, resume=before)
        learned = fit(model, dataset, self.objective, generator=generator, resume=resume)
        return concatenate_records(warmed, learned)
