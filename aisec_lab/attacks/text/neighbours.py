"""Neighbours of words that recur in two sets of texts, with a bound on those that recur by chance."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

ROWS = 500  # words that are compared with all others at once
FARTHEST = 100  # neighbours of a word that are ranked


def nearest_neighbours(vectors: np.ndarray) -> np.ndarray:
    """Find the nearest other words of each word by cosine.

    Args:
        vectors: unit vectors of n words (n, d).

    Returns:
        Indices of the min(100, n - 1) words of largest cosine, the largest first, (n, min(100, n - 1)), int64.
    """
    kept = []
    for start in range(0, len(vectors), ROWS):
        cosines = vectors[start : start + ROWS] @ vectors.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        kept.append(np.argsort(-cosines, axis=1, kind="stable")[:, : min(FARTHEST, len(vectors) - 1)])
    return np.concatenate(kept)


def recurring_neighbours(first: np.ndarray, second: np.ndarray, chance: float) -> Mapping[int, tuple[int, ...]]:
    """Find the neighbours that two rankings agree on, at a bounded false discovery rate.

    For two unrelated words, the rank of one among the neighbours of the other is uniform on 1..n-1, independently in
    both rankings. Both ranks are at most r with probability (r / (n - 1))^2, which is a p-value for each of the
    n (n - 1) pairs. The largest r is chosen for which the expected number of pairs by chance is at most `chance` times
    the number found (Benjamini & Hochberg, 1995, J. R. Stat. Soc. B 57, eq. 1).

    Args:
        first, second: `nearest_neighbours` of the same n words in two sets of texts without a common text.
        chance: false discovery rate, the share of the pairs that may be there by chance, in (0, 1).

    Returns:
        For each word that has any, its neighbours within rank r in both rankings, by the worse of their two ranks.
    """
    n, farthest = first.shape
    ranks = [[{word: rank for rank, word in enumerate(row, 1)} for row in side.tolist()] for side in (first, second)]
    worse = [
        {word: max(rank, there[word]) for word, rank in here.items() if word in there}
        for here, there in zip(*ranks, strict=True)
    ]
    pairs = Counter(rank for row in worse for rank in row.values())
    found, limit = 0, 0
    for rank in range(1, farthest + 1):
        found += pairs[rank]
        if found and n * rank**2 / (n - 1) <= chance * found:
            limit = rank
    within = [sorted((word for word, rank in row.items() if rank <= limit), key=row.__getitem__) for row in worse]
    return {place: tuple(row) for place, row in enumerate(within) if row}
