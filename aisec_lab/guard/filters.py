"""Filters decide which rows of a request may reach the model. Call contract: docs/guard.md, "Filter"."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

Rows = TypeVar("Rows", Tensor, tuple[str, ...])


class FilterDecision(IntEnum):
    """What a filter does with a row; of two decisions on a row the larger one holds."""

    PASS = 0
    SANITISE = 1
    REJECT = 2


@dataclass(frozen=True)
class FilterResult(Generic[Rows]):
    """What a filter decided on the N rows of a request.

    Args:
        rows: the rows as they go on, sanitised where so decided: inputs (N, *input), or N texts. What stands in the
            place of a rejected row must not be used.
        decisions: a `FilterDecision` for each row (N,), int64.
        scores: (N,), float64; a larger score is more suspicious. It is compared with the filter's threshold.
        reasons: for each row why it does not pass as it is; empty for a row that does.
    """

    rows: Rows
    decisions: Tensor
    scores: Tensor
    reasons: tuple[str, ...]

    @property
    def rejected(self) -> Tensor:
        """Which rows are rejected, (N,), bool."""
        return self.decisions == FilterDecision.REJECT


class Filter(Protocol[Rows]):
    """A filter: it has a name and judges each row of a request."""

    @property
    def name(self) -> str:
        """The name in reasons, counts and metrics, such as `mahalanobis`."""
        ...

    def check(self, rows: Rows, *, client: str) -> FilterResult[Rows]:
        """Judge the rows of a request.

        Args:
            rows: inputs (N, *input), or N texts; they are not changed.
            client: name of the credential that asks. A filter without a memory does not use it.

        Returns:
            The decision on each row.
        """
        ...


def above_threshold(
    name: str, rows: Rows, scores: Tensor, threshold: float, what: Callable[[float], str] = "score {:.4g}".format
) -> FilterResult[Rows]:
    """Reject the rows whose score is above a threshold, or is not a number.

    Args:
        name: of the filter, which begins each reason.
        rows: inputs (N, *input), or N texts.
        scores: (N,).
        threshold: the largest score that passes.
        what: says what a score is, in a reason.

    Returns:
        The decisions, with the rows as they came.
    """
    scores, n = scores.detach().double(), len(scores)
    within = scores <= threshold
    if within.all():  # nearly always: a few operations less for every request
        return FilterResult(rows, torch.zeros(n, dtype=torch.int64), scores, ("",) * n)
    reasons = [""] * n
    for row in (~within).nonzero()[:, 0].tolist():
        reasons[row] = f"{name}: {what(scores[row].item())} is above {threshold:.4g}"
    return FilterResult(rows, ~within * int(FilterDecision.REJECT), scores, tuple(reasons))


@dataclass(frozen=True)
class SchemaFilter:
    """Reject rows that are no inputs of the model: another shape, NaN, infinity, numbers out of range.

    Numbers that leave the range by rounding are clipped, which counts as sanitised. The score is the largest distance
    of a number from the range; it is infinite for NaN and infinity. Call contract: docs/guard.md, "Filter".

    Args:
        shape: of one input.
        low, high: the range of each number.
        slack: how far a number may leave the range and is clipped, at least 0.

    Raises:
        ValueError: an empty range or a negative slack.
    """

    shape: Sequence[int]
    low: float = 0.0
    high: float = 1.0
    slack: float = 1e-6
    name: str = "schema"

    def __post_init__(self) -> None:
        if not self.low < self.high or not self.slack >= 0:
            raise ValueError(
                f"low must be below high, and slack not negative, got {self.low}, {self.high} and {self.slack}"
            )

    def check(self, rows: Tensor, *, client: str) -> FilterResult[Tensor]:
        if tuple(rows.shape[1:]) != tuple(self.shape):
            reason = f"{self.name}: shape {tuple(rows.shape[1:])} is not {tuple(self.shape)}"
            infinite = torch.full((len(rows),), torch.inf, dtype=torch.float64)
            return FilterResult(
                rows, torch.full((len(rows),), int(FilterDecision.REJECT)), infinite, (reason,) * len(rows)
            )
        outside = (self.low - rows).maximum(rows - self.high).clamp(min=0).flatten(1).double()
        worst = outside.nan_to_num(nan=torch.inf, posinf=torch.inf).amax(1) if outside.shape[1] else outside.sum(1)
        result = above_threshold(
            self.name,
            rows,
            worst,
            self.slack,
            lambda away: f"a number is {away:.4g} outside [{self.low:g}, {self.high:g}], which",
        )
        moved = (worst > 0) & ~result.rejected
        if not moved.any():
            return result
        reasons = [
            f"{self.name}: clipped to [{self.low:g}, {self.high:g}]" if clipped else reason
            for reason, clipped in zip(result.reasons, moved.tolist(), strict=True)
        ]
        decisions = result.decisions + moved * int(FilterDecision.SANITISE)
        return FilterResult(rows.clamp(self.low, self.high), decisions, result.scores, tuple(reasons))
