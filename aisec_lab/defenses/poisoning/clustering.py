"""Activation clustering: the poisoned rows of a class form a cluster of their own in the activations."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult, learned_features

STEPS, TOLERANCE = 1000, 0.005  # of the independent component analysis
STARTS = 10  # of k-means


class NoComponentsError(ValueError):
    """The independent component analysis does not converge to components."""


@dataclass(frozen=True)
class ActivationClustering:
    """Two clusters in the features of each class (Chen et al., 2018, arXiv:1811.03728, algorithm 1).

    The last layer's features of each class are reduced to few components and split by 2-means. The smaller cluster is
    flagged if it is small and the clusters are compact (section 4.3, relative size and silhouette score). The paper's
    third test, which trains a model without the cluster, is left out.

    Call contract: docs/backdoor-defenses.md, "Sanitizers"; the call needs a model. The score of a row is the silhouette
    score of its class times (D - d) / (D + d), with d and D the row's distances from the centres of the smaller and the
    larger cluster; 0 in a class that cannot be split.

    Args:
        dims: number of components, at least 1; with no more features than that, the features themselves are used.
        reduction: "pca" for principal components, "ica" for independent ones as in the paper. The latter all have
            variance 1, so a direction of noise counts as much as the one that separates the poison. On 48 models that
            no study has (`benchmarks/clustering.csv`), with 4 % of all rows poisoned, "pca" finds 496 of 768 poisoned
            rows and flags 9.4 % of the clean ones, "ica" 136 and 3.2 %. With 10 % poisoned, which is half of the class,
            it is 357 of 1920 and 9.7 %, and 296 and 3.3 %. Seven of the 48 models had no independent components.
        size: a smaller cluster with at least this share of its class is not flagged, in (0, 0.5].
        silhouette: a class with a mean silhouette score of at most this is not flagged, in [-1, 1].

    Raises:
        ValueError: no model, or a setting out of range.
        NoComponentsError: a class without independent components; a ValueError.
    """

    dims: int = 10
    reduction: Literal["pca", "ica"] = "pca"
    size: float = 0.35
    silhouette: float = 0.1

    def __post_init__(self) -> None:
        if self.dims < 1 or not 0 < self.size <= 0.5 or not -1 <= self.silhouette <= 1:
            raise ValueError(f"dims must be positive, size lie in (0, 0.5], silhouette in [-1, 1]: {self}")
        if self.reduction not in ("ica", "pca"):
            raise ValueError(f'reduction is "ica" or "pca", got {self.reduction!r}')

    def __call__(
        self, dataset: Dataset, *, model: nn.Module | None = None, generator: torch.Generator
    ) -> SanitizerResult:
        from sklearn.metrics import silhouette_score  # takes a second to import, only where it is needed

        seen = learned_features(dataset, model, "ActivationClustering")
        score, flagged = torch.zeros(len(dataset), dtype=seen.dtype), torch.zeros(len(dataset), dtype=torch.bool)
        for c in dataset.y.unique():
            rows = (dataset.y == c).nonzero().squeeze(1)
            seed = int(torch.randint(2**31, (), generator=generator))
            reduced = components(seen[rows], self.dims, self.reduction, seed)
            near, small = two_means(reduced, seed)
            if not 0 < small.sum() < len(rows) - 1:
                continue
            silhouette = float(silhouette_score(reduced, small.numpy()))
            score[rows] = silhouette * near
            flagged[rows] = small & bool(small.double().mean() < self.size and silhouette > self.silhouette)
        return SanitizerResult(score, flagged)


def components(seen: Tensor, dims: int, reduction: str, seed: int) -> np.ndarray:
    """Components of features (N, D), at most `dims` and at most their rank; the features themselves if D <= dims."""
    from sklearn.decomposition import PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    rank = int(torch.linalg.matrix_rank(seen - seen.mean(0)))
    if seen.shape[1] <= dims or not rank:
        return seen.numpy()
    if reduction == "pca":
        return np.asarray(PCA(min(dims, rank), svd_solver="full").fit_transform(seen.numpy()))
    analysis = FastICA(min(dims, rank), max_iter=STEPS, tol=TOLERANCE, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the components of a normal law are not unique
        try:
            return np.asarray(analysis.fit_transform(seen.numpy()))
        except ValueError as error:  # the iteration came to NaN
            raise NoComponentsError(
                f'a class of {len(seen)} rows has no independent components ({error}): use reduction="pca"'
            ) from error


def two_means(reduced: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows (N, dims) into two clusters by k-means.

    Returns:
        How much nearer each row is to the centre of the smaller cluster, in [-1, 1], (N,); and the rows of that
        cluster, (N,), bool.
    """
    from sklearn.cluster import KMeans

    nothing = torch.zeros(len(reduced)), torch.zeros(len(reduced), dtype=torch.bool)
    if len(np.unique(reduced, axis=0)) < 2:
        return nothing
    means = KMeans(2, n_init=STARTS, random_state=seed).fit(reduced)
    distances = torch.from_numpy(means.transform(reduced)).double()
    smaller = int(np.bincount(means.labels_, minlength=2).argmin())
    d, large = distances[:, smaller], distances[:, 1 - smaller]
    return (large - d) / (large + d), torch.from_numpy(means.labels_ == smaller)
