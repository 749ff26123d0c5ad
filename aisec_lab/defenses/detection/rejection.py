"""The reject option: a classifier with one more column, which is highest where a detector is suspicious."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Splits, stratified_split
from aisec_lab.defenses.detection.detectors import BATCH, Detector, FittedDetector
from aisec_lab.models import device_of, frozen
from aisec_lab.models.contexts import trains

HELD_OUT = 0.25  # share of the training rows on which the threshold is chosen and on nothing else
SEED = 0  # of that split


class RejectingModel(nn.Module):
    """A classifier that may refuse to answer (the construction of Carlini & Wagner, 2017, arXiv:1705.07263, section 2).

    The last column of the logits is the highest class's plus (score - threshold) / scale: it wins where the score is
    above the threshold, and has a gradient where the score has one.

    Args:
        fitted: a detector, and in it the model.
        threshold: of the score; above it a row is rejected.
        scale: the score's unit; any positive number gives the same answers.

    Attributes:
        rejects: says that the last column is no class; whoever counts answers looks for it.
    """

    rejects = True

    def __init__(self, fitted: FittedDetector, threshold: float, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"the unit of the score must be positive, got {scale}")
        self.fitted, self.threshold, self.scale = fitted, threshold, scale
        self.training = trains(fitted)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K + 1) of inputs (N, *input)."""
        logits = self.fitted.model(x)
        reject = logits.amax(1) + (self.fitted.score(x) - self.threshold) / self.scale
        return torch.cat([logits, reject[:, None]], 1)


@torch.no_grad()
def scores_of(fitted: FittedDetector, x: Tensor) -> Tensor:
    """The scores of many rows, batch by batch, in evaluation mode: shape (N,)."""
    with frozen(fitted):
        return torch.cat([fitted.score(batch) for batch in x.split(BATCH)])


def threshold_at(scores: Tensor, fpr: float) -> float:
    """The threshold that a fresh clean row's score exceeds with a probability of at most `fpr`.

    Args:
        scores: of clean rows (N,) that nothing else was chosen on.
        fpr: false positive rate, in (0, 1).

    Returns:
        The ceil((N + 1)(1 - fpr))-th smallest score (Vovk et al., 2005, section 2.2); the probability is over the
        choice of all N + 1 rows.

    Raises:
        ValueError: a rate outside (0, 1), or too few rows for it.
    """
    if not 0 < fpr < 1:
        raise ValueError(f"the false positive rate must lie in (0, 1), got {fpr}")
    place = math.ceil((len(scores) + 1) * (1 - fpr))
    if place > len(scores):
        raise ValueError(f"a false positive rate of {fpr} needs at least {math.ceil(1 / fpr) - 1} rows: {len(scores)}")
    return scores.sort().values[place - 1].item()


def calibrated(fitted: FittedDetector, x: Tensor, fpr: float) -> RejectingModel:
    """A detector with the model in it, its threshold set for a false positive rate.

    Args:
        fitted: a detector.
        x: clean inputs (N, *input) that neither the detector nor, if the rate is to hold, the model has seen.
        fpr: as for `threshold_at`.
    """
    scores = scores_of(fitted, x)
    return RejectingModel(fitted, threshold_at(scores, fpr), scores.std().item())


@dataclass(frozen=True)
class RejectOption:
    """A detector in front of the model, its threshold set for a false positive rate.

    Three quarters of the training rows go to the detector, the others to the threshold. A model trained on all of them
    finds fresh rows more suspicious, and rejects more of them than `fpr`: measure the rate, or use `calibrated`.

    Args of the call:
        model: a classifier into K classes.
        data: the splits.

    Returns:
        `RejectingModel`, a classifier with K + 1 columns, in the mode of `model`. Attack it with the goal
        `EvadeDetector`.

    Raises:
        ValueError: no data, or too few rows for the rate.
    """

    detector: Detector
    fpr: float = 0.05

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        if data is None:
            raise ValueError("RejectOption fits its detector to clean rows: give it data=splits")
        train, device = data.train, device_of(model, data.train.x)
        fitting, held_out = (
            train.subset(torch.from_numpy(rows))
            for rows in stratified_split(train.y.numpy(), round(HELD_OUT * len(train)), SEED)
        )
        fitted = self.detector.fit(fitting.x.to(device), fitting.y.to(device), model=model)
        return calibrated(fitted, held_out.x.to(device), self.fpr)
