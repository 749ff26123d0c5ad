"""Spectral signatures: poisoned rows are outliers along one direction of the features of a class."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult, deviations, learned_features

OUTLIER = 3.5  # robust standard deviations (Iglewicz & Hoaglin, 1993, "How to detect and handle outliers", section 3.3)
MARGIN = 1.5  # the paper removes this many times the rows that it expects to be poisoned


@dataclass(frozen=True)
class SpectralSignatures:
    """The squared projection on the top singular vector of a class (Tran et al., 2018, arXiv:1811.00636, algorithm 1).

    The features of the last layer are centred by class; the score is the squared projection.

    Call contract: docs/backdoor-defenses.md, "Sanitizers"; the call needs a model, and draws nothing from `generator`.

    Args:
        expected: largest share of a class that is poisoned, in (0, 1], which the paper assumes to be known. In each
            class, 1.5 times as many rows are flagged, those with the highest scores. None assumes nothing: rows are
            flagged whose projection is more than 3.5 robust standard deviations from the median of their class. This
            finds small groups, and misses poison that is so large a part of a class that it widens the spread.

    Raises:
        ValueError: a share out of range, or no model.
    """

    expected: float | None = None

    def __post_init__(self) -> None:
        if self.expected is not None and not 0 < self.expected <= 1:
            raise ValueError(f"expected is the share of a class that is poisoned, above 0, at most 1: {self.expected}")

    def __call__(
        self, dataset: Dataset, *, model: nn.Module | None = None, generator: torch.Generator
    ) -> SanitizerResult:
        seen = learned_features(dataset, model, "SpectralSignatures")
        score, flagged = torch.zeros(len(dataset), dtype=seen.dtype), torch.zeros(len(dataset), dtype=torch.bool)
        for c in dataset.y.unique():
            rows = (dataset.y == c).nonzero().squeeze(1)
            along = projection(seen[rows])
            score[rows] = along.square()
            if self.expected is None:
                flagged[rows] = deviations(along) > OUTLIER
            else:
                out = min(len(rows), round(MARGIN * self.expected * len(rows)))
                flagged[rows[along.square().topk(out).indices]] = True
        return SanitizerResult(score, flagged)


def projection(seen: Tensor) -> Tensor:
    """Centred features (N, D) projected on their top right singular vector: (N,); the sign is arbitrary."""
    centred = seen - seen.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[0]
