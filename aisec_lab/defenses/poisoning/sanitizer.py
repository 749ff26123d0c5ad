"""Sanitizers look for poisoned rows in a training set: a score for each row, and the rows to remove."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.detection.detectors import features_of
from aisec_lab.models import device_of

NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


@dataclass(frozen=True, eq=False)
class SanitizerResult:
    """What a sanitizer found in a training set.

    Args:
        score: of each row (N,), float64; larger is more suspicious, on one scale for all classes.
        flagged: rows that the sanitizer itself would remove, (N,), bool.

    Raises:
        ValueError: shapes that differ, or a score of NaN.
    """

    score: Tensor
    flagged: Tensor

    def __post_init__(self) -> None:
        if self.score.ndim != 1 or self.flagged.shape != self.score.shape or self.flagged.dtype != torch.bool:
            raise ValueError(
                f"score and flagged must be (N,), the latter bool, got {tuple(self.score.shape)}, "
                f"{tuple(self.flagged.shape)} {self.flagged.dtype}"
            )
        if self.score.isnan().any():
            raise ValueError(f"{int(self.score.isnan().sum())} of {len(self.score)} scores are NaN")

    def kept(self, dataset: Dataset) -> Dataset:
        """Remove the flagged rows.

        Args:
            dataset: the dataset that the sanitizer has seen.

        Returns:
            The rows that are not flagged, in their order.

        Raises:
            ValueError: a dataset of another length, or one of which no row would remain.
        """
        if len(dataset) != len(self.score):
            raise ValueError(f"{len(self.score)} scores belong to another dataset than {dataset.name} ({len(dataset)})")
        return dataset.subset((~self.flagged).nonzero().squeeze(1))


class Sanitizer(Protocol):
    """A search for poisoned rows: a frozen dataclass of settings that is called.

    Call contract: docs/backdoor-defenses.md, "Sanitizers". A sanitizer is told neither the number of poisoned rows, nor
    the target class, nor the trigger, unless one of its fields says so.
    """

    def __call__(
        self, dataset: Dataset, *, model: nn.Module | None = None, generator: torch.Generator
    ) -> SanitizerResult:
        """Look for poisoned rows.

        Args:
            dataset: the training set as the learner gets it, poison included.
            model: a classifier trained on it, in evaluation mode; needed by sanitizers that use learned features.
            generator: source of all randomness.

        Returns:
            A score for each row, and the flagged rows.

        Raises:
            ValueError: a model is needed and missing.
        """
        ...


def learned_features(dataset: Dataset, model: nn.Module | None, name: str) -> Tensor:
    """The features of each row: the inputs of the model's last linear layer, (N, D), float64.

    Raises:
        ValueError: no model; `name` is the sanitizer that needs it.
    """
    if model is None:
        raise ValueError(f"{name} looks at what a model has learned: give it model=, a classifier trained on the rows")
    device = device_of(model, dataset.x)
    return features_of(model, dataset.x.to(device)).double().cpu()


def row_features(dataset: Dataset, model: nn.Module | None, features: bool, name: str) -> Tensor:
    """`learned_features` of each row if `features` is set, else its flattened inputs: (N, D), float64."""
    return learned_features(dataset, model, name) if features else dataset.x.flatten(1).double().cpu()


def deviations(values: Tensor) -> Tensor:
    """Distance of values (N,) from their median, in robust standard deviations: (N,), at least 0.

    If more than half of the values are equal, the distance of every other value is infinite.
    """
    off = (values - values.quantile(0.5)).abs()
    spread = NORMAL * off.quantile(0.5)
    return torch.where(off > 0, off / spread, torch.zeros_like(off))
