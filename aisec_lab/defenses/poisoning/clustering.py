"""Activation clustering: poisoned rows of a class form a cluster of their own."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult, learned

STEPS, TOLERANCE = 1000, 0.005  # of the independent component analysis
STARTS = 10  # of k-means


class NoComponentsError(ValueError):
    """Independent components that the algorithm does not find."""


@dataclass(frozen=True)
class ActivationClustering:
    """Two clusters in what a model has learned of a class (Chen et al., 2018, arXiv:1811.03728, algorithm 1).

    The features of the last layer of each class are reduced to few components, and these split by 2-means. The
    smaller cluster is flagged where it is small and the clusters are compact (section 4.3, relative size and silhouette
    score). The paper's third test, in which a model is trained anew without the cluster, is left out.

    Args:
        dims: components; all features where there are no more than that.
        reduction: "pca" for principal components, "ica" for the paper's independent ones: all of one variance, so that
            a direction of noise counts as much as the one in which poison lies. On 48 models that no study has
            (`benchmarks/clustering.csv`): where 4 % of all rows are poisoned, "pca" finds 496 of 768 and flags 9.4 % of
            the clean ones, "ica" 136 and 3.2 %; where 10 % are, half of the class, 357 and 9.7 %, and 296 and 3.3 %, of
            1920. Seven of the 48 had no independent components.
        size: a smaller cluster with at least this share of its class is not suspicious.
        silhouette: nor is one in a class whose mean silhouette score is at most this.

    Args of the call: as for `Sanitizer`, with a model; `generator` seeds the components and the clusters.

    Returns:
        The score is the class's silhouette score times (D - d) / (D + d), d and D a row's distances to the centres of
        the smaller and the larger cluster; 0 in a class that cannot be split.

    Raises:
        ValueError: no model, settings outside their range; NoComponentsError, independent components do not exist.
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
        from sklearn.metrics import silhouette_score  # a second that no other stage should pay

        seen = learned(dataset, model, "ActivationClustering")
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
    """Components of features (N, D), as many as dims and their rank allow; the features themselves if D <= dims."""
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
    """Two clusters of rows (N, dims).

    Returns:
        How much nearer each row is to the smaller one's centre, in [-1, 1], (N,); which rows are in it, (N,), bool.
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
