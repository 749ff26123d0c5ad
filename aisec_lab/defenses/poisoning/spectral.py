"""Spectral signatures: poisoned rows stand out along one direction of what a model has learned of a class."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult, deviations, learned

OUTLIER = 3.5  # robust standard deviations (Iglewicz & Hoaglin, 1993, "How to detect and handle outliers", section 3.3)
MARGIN = 1.5  # the paper takes out this many times the rows that it expects to be poisoned


@dataclass(frozen=True)
class SpectralSignatures:
    """The squared projection on the top singular vector of a class (Tran et al., 2018, arXiv:1811.00636, algorithm 1).

    In the features of the last layer, centred by class.

    Args:
        expected: the share of a class that is poisoned at most, which the paper takes for known: the 1.5 times as many
            rows with the highest scores of each class are flagged. None for a rule that is told nothing: flagged is
            what lies more than 3.5 robust standard deviations from its class's median along the vector. It finds
            small groups, and is blind where poison is so large a part of a class that it widens the spread itself.

    Args of the call, returns, raises: as for `Sanitizer`, with a model; a share outside (0, 1].
    """

    expected: float | None = None

    def __post_init__(self) -> None:
        if self.expected is not None and not 0 < self.expected <= 1:
            raise ValueError(f"expected is the share of a class that is poisoned, above 0, at most 1: {self.expected}")

    def __call__(
        self, dataset: Dataset, *, model: nn.Module | None = None, generator: torch.Generator
    ) -> SanitizerResult:
        seen = learned(dataset, model, "SpectralSignatures")
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
    """Centred features (N, D) along their top right singular vector: shape (N,); its sign means nothing."""
    centred = seen - seen.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[0]
