"""Which inputs of a pool an active learner asks about next."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BATCH = 1000  # rows whose distances to all known ones are held at once


class Strategy(Protocol):
    """A frozen dataclass that chooses rows by what the copy says of them."""

    def __call__(self, rest: Tensor, known: Tensor, n: int) -> Tensor:
        """Indices (n,) of different rows of the rest.

        Args:
            rest: the copy's probabilities (M, K) for rows that were not asked about.
            known: its probabilities (N, K) for those that were.
            n: how many, at most M.
        """
        ...


@dataclass(frozen=True)
class SmallestMargin:
    """The rows whose two likeliest classes lie closest together."""

    def __call__(self, rest: Tensor, known: Tensor, n: int) -> Tensor:
        highest = rest.topk(2, dim=1).values
        return (highest[:, 0] - highest[:, 1]).argsort(stable=True)[:n]


@dataclass(frozen=True)
class LargestEntropy:
    """The rows about which the copy is least sure: -sum_k p_k log p_k is largest (Pal et al., 2020, section 4)."""

    def __call__(self, rest: Tensor, known: Tensor, n: int) -> Tensor:
        return torch.special.entr(rest).sum(1).argsort(descending=True, stable=True)[:n]


@dataclass(frozen=True)
class KCenter:
    """Rows that leave no row far from one that is known: greedy k-center (Sener & Savarese, 2018, algorithm 1).

    arXiv:1708.00489; in the space of the copy's probabilities, as in ActiveThief. Each time the row is taken whose
    Euclidean distance to the nearest centre is largest, and becomes a centre: the distance that is left is at most
    twice the least possible.
    """

    def __call__(self, rest: Tensor, known: Tensor, n: int) -> Tensor:
        rest, known = rest.double(), known.double()
        exact = "donot_use_mm_for_euclid_dist"  # the product of matrices rounds small distances away
        distance = torch.cat([torch.cdist(part, known, compute_mode=exact).amin(1) for part in rest.split(BATCH)])
        chosen = []
        for _ in range(n):
            chosen.append(int(distance.argmax()))
            distance = torch.minimum(distance, (rest - rest[chosen[-1]]).norm(dim=1))
            distance[chosen[-1]] = -1  # never again, be all the others at distance 0
        return torch.tensor(chosen, dtype=torch.int64)
