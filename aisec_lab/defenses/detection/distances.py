"""Detectors that measure how far a row's features lie from those of clean rows."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.defenses.detection.detectors import FittedDetector, features, features_of

SMALLEST = 1e-6  # of the largest eigenvalue: a direction in which clean features vary less tells nothing
TINY = 1e-12  # keeps the logarithm of a distance of zero finite


class ClassDistance(FittedDetector):
    """The squared distance, in whitened features, to the nearest class mean."""

    whitening: Tensor
    means: Tensor

    def __init__(self, model: nn.Module, whitening: Tensor, means: Tensor) -> None:
        super().__init__(model)
        self.register_buffer("whitening", whitening)  # (D, directions)
        self.register_buffer("means", means)  # (classes, directions), whitened

    def score(self, x: Tensor) -> Tensor:
        whitened = features(self.model, x) @ self.whitening
        return (whitened[:, None] - self.means).square().sum(2).amin(1)


@dataclass(frozen=True)
class Mahalanobis:
    """The distance to the nearest class in the features' own covariance (Lee et al., 2018, arXiv:1807.03888, eq. 2).

    One covariance for all classes; the features of the last layer alone, without the paper's noise on the input and
    without its weighting of layers, which learns from attacks.
    """

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> ClassDistance:
        """As `Detector.fit`; y are the true classes."""
        seen = features_of(model, x).double()
        classes, index = y.unique(return_inverse=True)
        means = torch.stack([seen[index == c].mean(0) for c in range(len(classes))])
        spread = seen - means[index]
        values, vectors = torch.linalg.eigh(spread.T @ spread / len(spread))
        kept = values > SMALLEST * values[-1]
        whitening = vectors[:, kept] / values[kept].sqrt()
        return ClassDistance(model, whitening.to(x.dtype), (means @ whitening).to(x.dtype))


class Neighbourhood(FittedDetector):
    """Distances to the k nearest of the reference rows."""

    reference: Tensor

    def __init__(self, model: nn.Module, reference: Tensor, k: int) -> None:
        super().__init__(model)
        if k >= len(reference):
            raise ValueError(f"{k} neighbours need more reference rows than {len(reference)}: lower k")
        self.k = k
        self.register_buffer("reference", reference)

    def nearest(self, seen: Tensor) -> Tensor:
        """Distances (N, k) of features (N, D), ascending."""
        # the product of matrices would lose the small distances, which are those that count
        distances = torch.cdist(seen, self.reference, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.topk(self.k, dim=1, largest=False).values


class NeighbourDistance(Neighbourhood):
    """The distance to the k-th neighbour, all features scaled to length 1."""

    def score(self, x: Tensor) -> Tensor:
        return self.nearest(F.normalize(features(self.model, x)))[:, -1]


class LocalDimension(Neighbourhood):
    """The maximum likelihood estimate of the local intrinsic dimensionality."""

    def score(self, x: Tensor) -> Tensor:
        r = self.nearest(features(self.model, x)) + TINY
        return -1 / (r.log() - r[:, -1:].log()).mean(1).clamp(max=-TINY)


@dataclass(frozen=True)
class NearestNeighbours:
    """The distance to the k-th nearest clean row (Sun et al., 2022, arXiv:2204.06507, eq. 1)."""

    k: int = 10

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be positive, got {self.k}")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> NeighbourDistance:
        """As `Detector.fit`."""
        return NeighbourDistance(model, F.normalize(features_of(model, x)), self.k)


@dataclass(frozen=True)
class LID:
    """Local intrinsic dimensionality (Ma et al., 2018, arXiv:1801.02613, eq. 4).

    In the last layer's features and against all clean rows; the paper's regression over layers, which learns from
    attacks, is left out.
    """

    k: int = 20

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"k must be at least 2, got {self.k}")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> LocalDimension:
        """As `Detector.fit`."""
        return LocalDimension(model, features_of(model, x), self.k)
