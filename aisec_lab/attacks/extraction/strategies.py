"""Sampling strategies of active extraction: which inputs of a pool are queried next."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BATCH = 1000  # rows whose distances to all known ones are held at once


class Strategy(Protocol):
    """A sampling strategy: a frozen dataclass that chooses rows by the surrogate's probabilities."""

    def __call__(self, rest: Tensor, known: Tensor, n: int) -> Tensor:
        """Choose rows to query.

        Args:
            rest: the surrogate's probabilities (M, K) for rows that were not queried.
            known: its probabilities (N, K) for rows that were queried.
            n: number of rows to choose, at most M.

        Returns:
            Indices (n,) of different rows of `rest`, int64.
        """
        ...


@dataclass(frozen=True)
class SmallestMargin:
    """Choose the rows with the smallest difference of the two largest probabilities."""

    def __call__(self, rest: Tensor, known: Tensor, n: int) -> Tensor:
        """Choose rows to query.

        Args:
            rest: the surrogate's probabilities (M, K) for rows that were not queried.
            known: not used.
            n: number of rows, at most M.

        Returns:
            Indices (n,) of different rows of `rest`, int64, the smallest margin first.
        """
        highest = rest.topk(2, dim=1).values
        return (highest[:, 0] - highest[:, 1]).argsort(stable=True)[:n]


@dataclass(frozen=True)
class LargestEntropy:
    """Choose the rows with the largest entropy of the probabilities (Pal et al., 2020)."""

    def __call__(self, rest: Tensor, known: Tensor, n: int) -> Tensor:
        """Choose rows to query.

        Args:
            rest: the surrogate's probabilities (M, K) for rows that were not queried.
            known: not used.
            n: number of rows, at most M.

        Returns:
            Indices (n,) of different rows of `rest`, int64, the largest entropy first.
        """
        return torch.special.entr(rest).sum(1).argsort(descending=True, stable=True)[:n]


@dataclass(frozen=True)
class KCenter:
    """Greedy k-center (Sener & Savarese, 2018, arXiv:1708.00489, algorithm 1): each row is near a queried one.

    As in ActiveThief, rows are points in the space of the surrogate's probabilities. Each time the row with the largest
    Euclidean distance to its nearest centre is chosen, and becomes a centre. The largest distance that remains is at
    most twice the optimum.
    """

    def __call__(self, rest: Tensor, known: Tensor, n: int) -> Tensor:
        """Choose rows to query.

        Args:
            rest: the surrogate's probabilities (M, K) for rows that were not queried.
            known: its probabilities (N, K) for rows that were queried: the first centres; N >= 1.
            n: number of rows, at most M.

        Returns:
            Indices (n,) of different rows of `rest`, int64, in the order in which they were chosen.
        """
        rest, known = rest.double(), known.double()
        exact = "donot_use_mm_for_euclid_dist"  # the product of matrices rounds small distances away
        distance = torch.cat([torch.cdist(part, known, compute_mode=exact).amin(1) for part in rest.split(BATCH)])
        chosen = []
        for _ in range(n):
            chosen.append(int(distance.argmax()))
            distance = torch.minimum(distance, (rest - rest[chosen[-1]]).norm(dim=1))
            distance[chosen[-1]] = -1  # never again, be all the others at distance 0
        return torch.tensor(chosen, dtype=torch.int64)
