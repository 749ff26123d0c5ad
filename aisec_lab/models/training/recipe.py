"""Recipes: trainings that need more than an objective."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from aisec_lab.data import Dataset

if TYPE_CHECKING:  # `fit` imports this file
    from aisec_lab.models.training.fit import Fit, Objective


@dataclass(frozen=True)
class TrainingJob:
    """What `Fit` was called with, as it hands it to a recipe.

    Args:
        fit: the loop and its settings.
        model: classifier; trained in place.
        dataset: training rows.
        generator: source of all randomness.
        resume: file from which an interrupted training goes on; None for none.
    """

    fit: "Fit"
    model: nn.Module
    dataset: Dataset
    generator: torch.Generator
    resume: str | os.PathLike[str] | None = None

    def train(self, objective: "Objective | TrainingRecipe", **parts: Any) -> list[dict[str, float]]:
        """Carry out the job with an objective.

        Args:
            objective: what is minimised, or another recipe.
            parts: `step`, `batches` or `probe` of `Fit`, where they are not the default ones.

        Returns:
            The records of `Fit`, one for each epoch.
        """
        return self.fit(self.model, self.dataset, objective, generator=self.generator, resume=self.resume, **parts)

    def stage(self, name: str, **changes: Any) -> "TrainingJob":
        """The job of an earlier stage, which has a file of its own to resume from.

        Args:
            name: of the stage; the file is `resume` with `.name` after it.
            changes: fields that differ, such as `model` or `fit`.
        """
        resume = None if self.resume is None else f"{os.fspath(self.resume)}.{name}"
        return replace(self, resume=resume, **changes)


class TrainingRecipe(ABC):
    """A training that needs more than an objective: its own step or probe, another dataset, or an earlier stage.

    `Fit` takes it in place of an objective, and hands its own call over to `run`.
    """

    @abstractmethod
    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        """Train `job.model` in place.

        Args:
            job: what `Fit` was called with.

        Returns:
            One record for each epoch of all stages, as `Fit` returns them.

        Raises:
            ValueError, FloatingPointError: what `Fit` raises; what the recipe refuses.
        """


def concatenate_records(first: list[dict[str, float]], then: list[dict[str, float]]) -> list[dict[str, float]]:
    """The records of two trainings as those of one; the epochs of the second are numbered on.

    Args:
        first: records of the earlier training, as `Fit` returns them.
        then: records of the later one.

    Returns:
        All records, in order; the arguments stay as they are.
    """
    return first + [record | {"epoch": len(first) + record["epoch"]} for record in then]
