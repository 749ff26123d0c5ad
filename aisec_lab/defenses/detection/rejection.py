"""The reject option: a classifier with one more column of logits, which is highest where a detector fires."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Splits, stratified_split
from aisec_lab.defenses.detection.detectors import BATCH, Detector, FittedDetector
from aisec_lab.models import device_of, frozen
from aisec_lab.models.contexts import trains

HELD_OUT = 0.25  # share of the training rows that are used for the threshold only
SEED = 0  # of that split


class RejectingModel(nn.Module):
    """A classifier that rejects inputs (the construction of Carlini & Wagner, 2017, arXiv:1705.07263, section 2).

    The last column of the logits is the highest class's logit plus (score - threshold) / scale. It is the largest where
    the score is above the threshold, and differentiable where the score is.

    Args:
        fitted: a detector; it contains the model.
        threshold: a row with a higher score is rejected.
        scale: unit of the score; positive. It does not change which rows are rejected.

    Attributes:
        rejects: marks that the last column is no class; evaluation reads it.

    Raises:
        ValueError: a scale that is not positive.
    """

    rejects = True

    def __init__(self, fitted: FittedDetector, threshold: float, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"the unit of the score must be positive, got {scale}")
        self.fitted, self.threshold, self.scale = fitted, threshold, scale
        self.training = trains(fitted)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K + 1) of inputs (N, *input); the last column means rejection."""
        logits = self.fitted.model(x)
        reject = logits.amax(1) + (self.fitted.score(x) - self.threshold) / self.scale
        return torch.cat([logits, reject[:, None]], 1)


@torch.no_grad()
def scores_of(fitted: FittedDetector, x: Tensor) -> Tensor:
    """The scores of many inputs, batch by batch, in evaluation mode.

    Args:
        fitted: a detector.
        x: inputs (N, *input) in [0, 1].

    Returns:
        (N,), without a graph.
    """
    with frozen(fitted):
        return torch.cat([fitted.score(batch) for batch in x.split(BATCH)])


def threshold_at(scores: Tensor, fpr: float) -> float:
    """The threshold that a new clean row's score exceeds with probability at most `fpr` (Vovk et al., 2005).

    Args:
        scores: of clean rows (N,) that were used for nothing else.
        fpr: false positive rate, in (0, 1).

    Returns:
        The ceil((N + 1)(1 - fpr))-th smallest score (section 2.2). The probability is over the draw of all N + 1 rows.

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
    """A rejecting classifier whose threshold is set for a false positive rate.

    Args:
        fitted: a detector; it contains the model.
        x: clean inputs (N, *input). For the rate to hold, neither detector nor model may have been fitted to them.
        fpr: false positive rate, in (0, 1).

    Returns:
        The classifier, in the mode of the model.

    Raises:
        ValueError: a rate outside (0, 1), or too few rows for it.
    """
    scores = scores_of(fitted, x)
    return RejectingModel(fitted, threshold_at(scores, fpr), scores.std().item())


@dataclass(frozen=True)
class RejectOption:
    """Reject the inputs that a detector finds adversarial, at a chosen false positive rate.

    Three quarters of the training rows fit the detector, the others set the threshold. A model that was trained on all
    of them gives new rows higher scores, and rejects more of them than `fpr`: measure the rate, or use `calibrated`.
    Call contract: docs/defenses.md, "Inference-time defense"; data is required. It returns a `RejectingModel`, with
    K + 1 columns: attack it with the goal `EvadeDetector`.

    Args:
        detector: before `fit`.
        fpr: false positive rate, in (0, 1); with too few rows for it the call raises a ValueError.
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
