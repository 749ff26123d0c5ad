"""Pairs of words that are near each other in each of two sets of texts: more of them than chance would have."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

ROWS = 500  # words whose neighbours are sought at a time
FARTHEST = 100  # neighbours of a word that are looked at


def nearest(vectors: np.ndarray) -> np.ndarray:
    """Which words are nearest to each, itself left out.

    Args:
        vectors: unit vectors of n words (n, d).

    Returns:
        Places of the 100 (n - 1, where there are fewer) of largest cosine, the largest first: (n, 100), int64.
    """
    kept = []
    for start in range(0, len(vectors), ROWS):
        cosines = vectors[start : start + ROWS] @ vectors.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        kept.append(np.argsort(-cosines, axis=1, kind="stable")[:, : min(FARTHEST, len(vectors) - 1)])
    return np.concatenate(kept)


def recurring(first: np.ndarray, second: np.ndarray, chance: float) -> Mapping[int, tuple[int, ...]]:
    """Neighbours in both of two rankings, as many as leave the share that chance explains below a bound.

    Between words that have nothing to do with each other the rank of one among the neighbours of the other is uniform
    on 1..n-1, in the second ranking whatever it is in the first: both are at most r with probability (r / (n - 1))^2,
    which is a p-value for each of the n (n - 1) pairs. The largest r is taken for which the pairs that chance alone
    would give are no more than `chance` of those found (Benjamini & Hochberg, 1995, J. R. Stat. Soc. B 57, eq. 1).

    Args:
        first, second: what `nearest` gives for the same n words of two sets of texts that have no text in common.
        chance: share of the pairs that may be there by chance, the false discovery rate, in (0, 1).

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
