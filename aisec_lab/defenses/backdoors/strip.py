"""STRIP: an input with a trigger keeps its predicted class when other images are superimposed on it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.defenses.detection.detectors import FittedDetector, Reading

SEED = 0  # of the choice of overlays
PASS = 2000  # superimposed images in one forward pass


class STRIPDetector(FittedDetector):
    """A fitted `STRIP`: its score is minus the mean entropy over the overlays (Gao et al., 2019, eq. 4).

    Args:
        model: classifier in evaluation mode.
        overlays: clean inputs (M, *input) that are added to each row.
        weight: of row and overlay in their sum, in (0, 1].
    """

    overlays: Tensor

    def __init__(self, model: nn.Module, overlays: Tensor, weight: float) -> None:
        super().__init__(model)
        self.weight = weight
        self.register_buffer("overlays", overlays)  # (overlays, *input)

    def score(self, x: Tensor) -> Tensor:
        """Minus the mean entropy, in bits, of the predictions for each input (N, *input) with the overlays: (N,)."""
        rows = max(1, PASS // len(self.overlays))
        return torch.cat([self._score(part) for part in x.split(rows)])

    def score_of(self, reading: Reading) -> Tensor:
        """The same of inputs that the model has answered already; that answer is not needed."""
        return self.score(reading.x)

    def _score(self, x: Tensor) -> Tensor:
        mixed = (self.weight * (x[:, None] + self.overlays)).clamp(0, 1)  # (N, overlays, *input)
        logits = self.model(mixed.flatten(0, 1))
        check_not_probabilities(logits)
        log_p = logits.log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1) / math.log(2)
        return -entropy.view(len(x), -1).mean(1)


@dataclass(frozen=True)
class STRIP:
    """Entropy of the predictions on superimposed images (Gao et al., 2019, arXiv:1902.06531, section IV).

    Clean images are superimposed on each input. With a trigger, the prediction hardly depends on the rest of the image,
    so its entropy is low; for a clean input it is high. Triggers that do not survive the superposition, such as a warp,
    are missed. All inputs get the same overlays, where the paper draws others for each: so the score of an input does
    not depend on its batch.

    Args:
        overlays: number of overlays (the paper's N), chosen from the rows that `fit` gets.
        weight: of the input and of the overlay in their sum, in (0, 1]; the sum is clipped to [0, 1]. 1 adds them, as
            the code of the paper does; 0.5 is their mean.

    Raises:
        ValueError: a setting out of range.
    """

    overlays: int = 100
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.overlays < 1 or not 0 < self.weight <= 1:
            raise ValueError(f"overlays must be positive and weight lie in (0, 1]: {self}")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> STRIPDetector:
        """Choose the overlays.

        Args:
            x: clean inputs (N, *input) in [0, 1].
            y: their classes; not used.
            model: classifier in evaluation mode.

        Returns:
            The fitted detector. Larger scores are more suspicious.

        Raises:
            ValueError: fewer clean rows than overlays.
        """
        if len(x) < self.overlays:
            raise ValueError(f"{self.overlays} overlays need as many clean rows, got {len(x)}: lower overlays")
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))[: self.overlays]
        return STRIPDetector(model, x[chosen.to(x.device)], self.weight)
