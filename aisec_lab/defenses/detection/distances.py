"""Detectors that measure the distance of features to those of clean data. Call contract: docs/defenses.md."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.defenses.detection.detectors import FittedDetector, Reading, features_of

SMALLEST = 1e-6  # directions with a smaller share of the largest eigenvalue are ignored as constant
TINY = 1e-12  # keeps the logarithm of a distance of zero finite


class MahalanobisScore(FittedDetector):
    """Scores of `Mahalanobis`: the squared distance to the nearest class mean, in whitened features.

    Args:
        model: classifier.
        whitening: matrix (D, directions) that whitens features.
        means: class means (K, directions), whitened.
    """

    whitening: Tensor
    means: Tensor

    def __init__(self, model: nn.Module, whitening: Tensor, means: Tensor) -> None:
        super().__init__(model)
        self.register_buffer("whitening", whitening)
        self.register_buffer("means", means)

    def score_of(self, reading: Reading) -> Tensor:
        whitened = reading.features @ self.whitening
        return (whitened[:, None] - self.means).square().sum(2).amin(1)


@dataclass(frozen=True)
class Mahalanobis:
    """The Mahalanobis distance to the nearest class mean (Lee et al., 2018, arXiv:1807.03888, eq. 2).

    All classes share one covariance. It uses the last layer's features alone: the paper's input noise and its weighting
    of layers, which is fitted to attacks, are left out. Call contract: docs/defenses.md, "Detector".
    """

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> MahalanobisScore:
        """Estimate class means and covariance; y are the true classes (docs/defenses.md)."""
        clean = features_of(model, x).double()
        classes, index = y.unique(return_inverse=True)
        means = torch.stack([clean[index == c].mean(0) for c in range(len(classes))])
        centred = clean - means[index]
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        kept = values > SMALLEST * values[-1]
        whitening = vectors[:, kept] / values[kept].sqrt()
        return MahalanobisScore(model, whitening.to(x.dtype), (means @ whitening).to(x.dtype))


class NeighbourScore(FittedDetector):
    """Base class of scores that depend on the k nearest clean rows.

    Args:
        model: classifier.
        reference: features (M, D) of clean rows.
        k: neighbours, fewer than M.

    Raises:
        ValueError: k is not below M.
    """

    reference: Tensor

    def __init__(self, model: nn.Module, reference: Tensor, k: int) -> None:
        super().__init__(model)
        if k >= len(reference):
            raise ValueError(f"{k} neighbours need more reference rows than {len(reference)}: lower k")
        self.k = k
        self.register_buffer("reference", reference)

    def nearest(self, points: Tensor) -> Tensor:
        """Distances (N, k) of features (N, D) to their nearest reference rows, ascending."""
        # computed by a matrix product, small distances, which matter most, would lose their precision
        distances = torch.cdist(points, self.reference, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.topk(self.k, dim=1, largest=False).values


class KNNScore(NeighbourScore):
    """Scores of `NearestNeighbours`: the distance to the k-th neighbour of features that are scaled to L2 norm 1."""

    def score_of(self, reading: Reading) -> Tensor:
        return self.nearest(F.normalize(reading.features))[:, -1]


class LIDScore(NeighbourScore):
    """Scores of `LID`: the maximum likelihood estimate of the local intrinsic dimensionality."""

    def score_of(self, reading: Reading) -> Tensor:
        r = self.nearest(reading.features) + TINY
        return -1 / (r.log() - r[:, -1:].log()).mean(1).clamp(max=-TINY)


@dataclass(frozen=True)
class NearestNeighbours:
    """The distance to the k-th nearest clean row (Sun et al., 2022, arXiv:2204.06507, eq. 1).

    Call contract: docs/defenses.md, "Detector"; y is unused.

    Args:
        k: which neighbour, at least 1 and below the number of clean rows.
    """

    k: int = 10

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be positive, got {self.k}")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> KNNScore:
        """Keep the features of the clean rows (docs/defenses.md)."""
        return KNNScore(model, F.normalize(features_of(model, x)), self.k)


@dataclass(frozen=True)
class LID:
    """Local intrinsic dimensionality (Ma et al., 2018, arXiv:1801.02613, eq. 4).

    It uses the last layer's features and all clean rows. The paper's regression over layers, which is fitted to
    attacks, is left out. Call contract: docs/defenses.md, "Detector"; y is unused.

    Args:
        k: neighbours, at least 2 and below the number of clean rows.
    """

    k: int = 20

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"k must be at least 2, got {self.k}")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> LIDScore:
        """Keep the features of the clean rows (docs/defenses.md)."""
        return LIDScore(model, features_of(model, x), self.k)
