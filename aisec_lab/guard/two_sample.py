"""Statistics that tell how far a part of a sample lies from the rest of it, for permutation tests."""

from typing import Protocol

import torch
from torch import Tensor


class TwoSampleStatistic(Protocol):
    """What a permutation test compares: a function of a pooled sample and of the rows that are set apart.

    It must not depend on the order of the pooled rows: then the test is exact.
    """

    def __call__(self, pooled: Tensor, parts: Tensor) -> Tensor:
        """How far each part lies from the rest.

        Args:
            pooled: both samples together (M, D), float64.
            parts: for each of B divisions, which w rows are set apart (B, w), int64, with 0 < w < M.

        Returns:
            A statistic for each division (B,), float64; larger is farther.
        """
        ...


def energy_distance(pooled: Tensor, parts: Tensor) -> Tensor:
    """The energy distance of a part from the rest (Szekely & Rizzo, 2004): zero if and only if both are alike.

    It notices every kind of change. Columns of a vector should be on one scale, since distances are Euclidean. Of a
    single column it is twice the integral of the squared difference of the distribution functions.

    Args:
        pooled: both samples together (M, D), float64.
        parts: for each of B divisions, which w rows are set apart (B, w), int64, with 0 < w < M.

    Returns:
        2 E|X - Y| - E|X - X'| - E|Y - Y'| for each division (B,), X from the part and Y from the rest.
    """
    if pooled.shape[1] == 1:
        return _energy_on_a_line(pooled[:, 0], parts)
    distances = torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist")
    part, rest = parts.shape[1], len(pooled) - parts.shape[1]
    inside = distances.view(-1)[parts[:, :, None] * len(pooled) + parts[:, None, :]].sum((1, 2))
    touching = distances.sum(1)[parts].sum(1)  # all distances from the part, those inside it included
    outside = distances.sum() - 2 * touching + inside
    return 2 * (touching - inside) / (part * rest) - inside / part**2 - outside / rest**2


def largest_mean_difference(pooled: Tensor, parts: Tensor) -> Tensor:
    """The largest standardised difference of means over the columns.

    It notices shifts of single columns among many, and nothing but shifts of means. Columns may have any scale.

    Args:
        pooled: both samples together (M, D), float64.
        parts: for each of B divisions, which w rows are set apart (B, w), int64, with 0 < w < M.

    Returns:
        The largest |mean of the part - mean of the rest| in standard deviations of the pooled column, for each division
        (B,). A column without variation counts as 0.
    """
    spread = pooled.std(0, correction=0)
    scores = (pooled - pooled.mean(0)) / torch.where(spread > 0, spread, 1)
    means = torch.nn.functional.embedding_bag(parts, scores, mode="mean")
    return means.abs().amax(1) * len(pooled) / (len(pooled) - parts.shape[1])  # the mean of all scores is 0


def _energy_on_a_line(pooled: Tensor, parts: Tensor) -> Tensor:
    """The energy distance of numbers (M,), for each of the divisions (B, w), from their distribution functions."""
    part, rest = parts.shape[1], len(pooled) - parts.shape[1]
    order = pooled.argsort()
    apart = pooled.new_zeros(len(parts), len(pooled)).scatter_(1, parts, 1.0)[:, order]
    below = apart.cumsum(1)[:, :-1]  # rows of the part, up to each place but the last
    others = torch.arange(1, len(pooled)) - below
    return 2 * (below / part - others / rest).square() @ pooled[order].diff()
