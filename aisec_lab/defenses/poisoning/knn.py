"""Neighbours that disagree: a row whose nearest neighbours have other labels."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult, represented

BATCH = 500  # rows whose distances to all are held at once


@dataclass(frozen=True)
class KNNSanitizer:
    """The share of the k nearest rows with another label (Paudice et al., 2018, arXiv:1803.00992, algorithm 1).

    The paper gives such a row its neighbours' label; here it is flagged. In learned features it is the deep k-NN of
    Peri et al. (2020, arXiv:1909.13374, section 3), which flags a row whose label is not the most frequent one.

    Args:
        k: neighbours, in Euclidean distance; a row is none of its own.
        threshold: a row is flagged where a larger share of them has another label.
        learned: whether they are near in the features of the model's last layer, or in the inputs.

    Args of the call: as for `Sanitizer`, with a model where features are `learned`; nothing is drawn from `generator`.

    Returns, raises: as for `Sanitizer`; settings outside their range, fewer rows than neighbours.
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
        near = nearest(represented(dataset, model, self.learned, "KNNSanitizer"), self.k)
        score = (dataset.y[near] != dataset.y[:, None]).double().mean(1)
        return SanitizerResult(score, score > self.threshold)


def nearest(z: Tensor, k: int) -> Tensor:
    """Numbers (N, k) of the k rows of z (N, D) that lie nearest to each, itself not counted."""
    found = []
    for rows in torch.arange(len(z)).split(BATCH):
        distances = torch.cdist(z[rows], z)
        distances[torch.arange(len(rows)), rows] = torch.inf
        found.append(distances.topk(k, 1, largest=False).indices)
    return torch.cat(found)
