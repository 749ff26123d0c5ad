"""How a server makes one update of many, some of which may be an attacker's."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class AggregationRule(Protocol):
    """A frozen dataclass of settings that is called."""

    additive: ClassVar[bool]  # whether a weighted sum is all that it needs to know

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        """Combine updates.

        Args:
            updates: of the clients (n, P), floating point; changes of the weights, not weights.
            rows: how many rows each client says it has (n,).

        Returns:
            The server's update (P,).

        Raises:
            ValueError: fewer clients than the rule needs, or an update that is not finite.
        """
        ...


@dataclass(frozen=True)
class FedAvg:
    """The mean, weighted by rows (McMahan et al., 2017, arXiv:1602.05629, algorithm 1: FedAvg); see `AggregationRule`.

    A single client can move it anywhere.
    """

    additive: ClassVar[bool] = True

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        check_finite(updates)
        return shares(rows, updates) @ updates


def check_finite(updates: Tensor) -> None:
    """Refuse updates (n, P) of which one is NaN or infinite: it would be the model's end, whatever the others say.

    Raises:
        ValueError: as said.
    """
    finite = updates.isfinite().all(1)
    if not finite.all():
        where = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"updates must be finite, got NaN or infinity from {where}: leave them out, as Federation does"
        )


def shares(rows: Tensor, updates: Tensor) -> Tensor:
    """The weights (n,) of the updates in their mean, in proportion to rows (n,)."""
    weights = rows.to(updates)
    return weights / weights.sum()


@dataclass(frozen=True)
class Krum:
    """The updates nearest to their neighbours (Blanchard et al., 2017, arXiv:1703.02757, sections 4 and 5);
    `AggregationRule`.

    An update's score is the sum of its squared distances to the n - f - 2 others that are nearest. One update, or the
    plain mean of several (multi-Krum), is kept: rows do not count, an attacker may claim any number.

    Args:
        byzantine: f, how many attackers are expected; there must be 2 f + 3 clients at least.
        kept: m, how many updates with the least scores are averaged; 1 is Krum.
    """

    byzantine: int = 1
    kept: int = 1

    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.byzantine < 0 or self.kept < 1:
            raise ValueError(f"byzantine must not be negative and kept be positive: {self}")

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        check_finite(updates)
        return updates[self.select(updates)].mean(0)

    def select(self, updates: Tensor) -> Tensor:
        """Which of the updates (n, P) are kept, (kept,), int64, the least score first."""
        n = len(updates)
        if n < 2 * self.byzantine + 3 or self.kept > n:
            raise ValueError(
                f"Krum against {self.byzantine} attackers needs {2 * self.byzantine + 3} clients and at least the "
                f"{self.kept} that are kept, got {n}: lower byzantine or kept"
            )
        distances = torch.cdist(updates.double(), updates.double(), compute_mode="donot_use_mm_for_euclid_dist")
        others = distances.square().fill_diagonal_(torch.inf)
        scores = others.sort(dim=1).values[:, : n - self.byzantine - 2].sum(1)
        return scores.argsort(stable=True)[: self.kept]


@dataclass(frozen=True)
class TrimmedMean:
    """The mean of what is left, in each coordinate, without the largest and smallest values; `AggregationRule`.

    Yin et al. (2018, arXiv:1803.01498, definition 2). It never leaves the range of the honest values, coordinate by
    coordinate, while no more attack than are trimmed.

    Args:
        byzantine: how many values are left out at either end; there must be 2 byzantine + 1 clients at least.
    """

    byzantine: int = 1

    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.byzantine < 0:
            raise ValueError(f"byzantine must not be negative: {self}")

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        check_finite(updates)
        n = len(updates)
        if n <= 2 * self.byzantine:
            raise ValueError(
                f"trimming {self.byzantine} at either end needs {2 * self.byzantine + 1} clients, got {n}: "
                "lower byzantine"
            )
        return updates.sort(dim=0).values[self.byzantine : n - self.byzantine].mean(0)


@dataclass(frozen=True)
class Median:
    """The median in each coordinate (Yin et al., 2018, arXiv:1803.01498, definition 1); `AggregationRule`.

    Of an even number of clients the mean of the two in the middle.
    """

    additive: ClassVar[bool] = False

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        check_finite(updates)
        n = len(updates)
        if not n:
            raise ValueError("there is no update to take the median of: sample at least one client")
        ordered = updates.sort(dim=0).values
        return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
