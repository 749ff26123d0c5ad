"""What a sanitizer says of a training set: how suspicious each row is, and which rows it would take out."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.detection.detectors import features_of
from aisec_lab.models import device_of

NORMAL = 1.4826  # the standard deviation of a normal law over its median absolute deviation


@dataclass(frozen=True, eq=False)
class SanitizerResult:
    """The verdict on each row of a training set.

    Args:
        score: how suspicious, (N,), float64, bigger is more so; of all classes on one scale.
        flagged: what the sanitizer itself would take out, (N,), bool.

    Raises:
        ValueError: shapes that differ, a score that is no number.
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
        """The rows that are not flagged, in their order.

        Raises:
            ValueError: a dataset of another length, or one of which nothing would be left.
        """
        if len(dataset) != len(self.score):
            raise ValueError(f"{len(self.score)} scores belong to another dataset than {dataset.name} ({len(dataset)})")
        return dataset.subset((~self.flagged).nonzero().squeeze(1))


class Sanitizer(Protocol):
    """A search for poisoned rows: a frozen dataclass of settings that is called.

    Unless a field says so, it is told neither how many rows are poisoned, nor the target, nor the trigger.
    """

    def __call__(
        self, dataset: Dataset, *, model: nn.Module | None = None, generator: torch.Generator
    ) -> SanitizerResult:
        """Look for poisoned rows.

        Args:
            dataset: the training set as the learner gets it, poison included.
            model: a classifier trained on it, in evaluation mode, where the sanitizer needs one.
            generator: source of all randomness.

        Raises:
            ValueError: a model that is needed and missing.
        """
        ...


def learned(dataset: Dataset, model: nn.Module | None, name: str) -> Tensor:
    """The inputs of a model's last linear layer (N, D), float64, for each row.

    Raises:
        ValueError: no model; `name` is the sanitizer that needs it.
    """
    if model is None:
        raise ValueError(f"{name} looks at what a model has learned: give it model=, a classifier trained on the rows")
    device = device_of(model, dataset.x)
    return features_of(model, dataset.x.to(device)).double().cpu()


def represented(dataset: Dataset, model: nn.Module | None, features: bool, name: str) -> Tensor:
    """Each row as the features of a model's last layer, or as its inputs: (N, D), float64; raises as `learned`."""
    return learned(dataset, model, name) if features else dataset.x.flatten(1).double().cpu()


def deviations(values: Tensor) -> Tensor:
    """How many robust standard deviations values (N,) lie from their median; infinite where more than half are equal
    and the value is another."""
    off = (values - values.quantile(0.5)).abs()
    spread = NORMAL * off.quantile(0.5)
    return torch.where(off > 0, off / spread, torch.zeros_like(off))
