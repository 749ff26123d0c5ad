"""Nearest neighbours: a row is suspicious if its nearest neighbours have other labels."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult, row_features

BATCH = 500  # rows whose distances to all rows are in memory at once


@dataclass(frozen=True)
class KNNSanitizer:
    """The share of the k nearest rows with another label (Paudice et al., 2018, arXiv:1803.00992, algorithm 1).

    The paper relabels such a row with its neighbours' label; here it is flagged. In learned features this is the deep
    k-NN defense of Peri et al. (2020, arXiv:1909.13374, section 3), which flags a row whose label is not the most
    frequent one.

    Call contract: docs/backdoor-defenses.md, "Sanitizers"; the call needs a model if `learned` is set, and draws
    nothing from `generator`. The score is the share.

    Args:
        k: number of neighbours, in Euclidean distance, without the row itself; at least 1.
        threshold: a row with a larger share is flagged, in [0, 1).
        learned: measure distances between features of the model's last layer, not between inputs.

    Raises:
        ValueError: a setting out of range, no more rows than neighbours, or a missing model.
    """

    k: int = 10
    threshold: float = 0.5
    learned: bool = False

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 <= self.threshold < 1:
            raise ValueError(f"k must be positive and threshold lie in [0, 1): {self}")

    def __call__(
        self, dataset: Dataset, *, model: nn.Module | None = None, generator: torch.Generator
    ) -> SanitizerResult:
        if self.k >= len(dataset):
            raise ValueError(f"{self.k} neighbours need more rows than {len(dataset)}: lower k")
        near = nearest(row_features(dataset, model, self.learned, "KNNSanitizer"), self.k)
        score = (dataset.y[near] != dataset.y[:, None]).double().mean(1)
        return SanitizerResult(score, score > self.threshold)


def nearest(z: Tensor, k: int) -> Tensor:
    """Row numbers (N, k) of the k nearest other rows of each row of z (N, D)."""
    found = []
    for rows in torch.arange(len(z)).split(BATCH):
        distances = torch.cdist(z[rows], z)
        distances[torch.arange(len(rows)), rows] = torch.inf
        found.append(distances.topk(k, 1, largest=False).indices)
    return torch.cat(found)
