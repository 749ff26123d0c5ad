"""STRIP: a trigger still rules the answer when another image is laid over it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.defenses.detection.detectors import FittedDetector

SEED = 0  # of the choice of overlays
PASS = 2000  # superimposed images that go through the model at once


class STRIPDetector(FittedDetector):
    """Minus the mean entropy, in bits, of the answers to a row with each overlay on it (Gao et al., 2019, eq. 4)."""

    overlays: Tensor

    def __init__(self, model: nn.Module, overlays: Tensor, weight: float) -> None:
        super().__init__(model)
        self.weight = weight
        self.register_buffer("overlays", overlays)  # (overlays, *input)

    def score(self, x: Tensor) -> Tensor:
        rows = max(1, PASS // len(self.overlays))
        return torch.cat([self._score(part) for part in x.split(rows)])

    def _score(self, x: Tensor) -> Tensor:
        mixed = (self.weight * (x[:, None] + self.overlays)).clamp(0, 1)  # (N, overlays, *input)
        logits = self.model(mixed.flatten(0, 1))
        check_not_probabilities(logits)
        log_p = logits.log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1) / math.log(2)
        return -entropy.view(len(x), -1).mean(1)


@dataclass(frozen=True)
class STRIP:
    """How sure the model stays when clean images are laid over a row (Gao et al., 2019, arXiv:1902.06531, section IV).

    A backdoor's answer does not depend on what else is in the image, so its entropy is low; a clean row's is high. It
    misses triggers that do not survive the mixing, such as a warp. All rows get the same overlays, where the paper
    draws others for each: so a row's score is its own, whatever the batch.

    Args:
        overlays: how many clean rows are laid over each (the paper's N); a fixed choice of those that `fit` is given.
        weight: of the row and of the overlay in their sum, which is cut to [0, 1]: 1 adds them, as the paper's own
            code does; 0.5 is their mean.
    """

    overlays: int = 100
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.overlays < 1 or not 0 < self.weight <= 1:
            raise ValueError(f"overlays must be positive and weight lie in (0, 1]: {self}")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> STRIPDetector:
        """As `Detector.fit`; ValueError for fewer clean rows than overlays."""
        if len(x) < self.overlays:
            raise ValueError(f"{self.overlays} overlays need as many clean rows, got {len(x)}: lower overlays")
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))[: self.overlays]
        return STRIPDetector(model, x[chosen.to(x.device)], self.weight)
