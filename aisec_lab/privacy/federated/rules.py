"""Aggregation rules: one update of the server from those of many clients, some of which may be malicious."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class AggregationRule(Protocol):
    """A rule that aggregates updates: a frozen dataclass of settings that is called.

    `additive` says whether the rule needs only a weighted sum, so that it can run under secure aggregation.
    """

    additive: ClassVar[bool]

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        """Aggregate updates.

        Args:
            updates: the clients' updates (n, P), floating point: changes of the weights, not weights.
            rows: number of rows that each client claims to have (n,).

        Returns:
            The server's update (P,).

        Raises:
            ValueError: fewer clients than the rule needs, or an update that is not finite.
        """
        ...


@dataclass(frozen=True)
class FedAvg:
    """The mean weighted by rows (McMahan et al., 2017, arXiv:1602.05629, algorithm 1).

    A single malicious client can move it anywhere.
    """

    additive: ClassVar[bool] = True

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        """Aggregate updates.

        Args:
            updates: the clients' updates (n, P), floating point.
            rows: number of rows of each client (n,), not all 0.

        Returns:
            The server's update (P,).

        Raises:
            ValueError: an update that is not finite.
        """
        check_finite(updates)
        return shares(rows, updates) @ updates


def check_finite(updates: Tensor) -> None:
    """Refuse updates (n, P) if one is not finite.

    Raises:
        ValueError: with the indices of such updates.
    """
    finite = updates.isfinite().all(1)
    if not finite.all():
        where = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"updates must be finite, got NaN or infinity from {where}: leave them out, as Federation does"
        )


def shares(rows: Tensor, updates: Tensor) -> Tensor:
    """The weights of updates in their mean, proportional to rows.

    Args:
        rows: number of rows of each client (n,).
        updates: the clients' updates (n, P).

    Returns:
        Weights (n,) in the dtype of `updates`, with sum 1.
    """
    weights = rows.to(updates)
    return weights / weights.sum()


@dataclass(frozen=True)
class Krum:
    """Krum and multi-Krum (Blanchard et al., 2017, arXiv:1703.02757, sections 4 and 5).

    An update's score is the sum of its squared distances to its n - f - 2 nearest others. The result is the plain mean
    of the updates with the lowest scores; numbers of rows are ignored, since an attacker may claim any.

    Args:
        byzantine: f, expected number of malicious clients, at least 0; there must be at least 2 f + 3 clients.
        kept: m, number of updates that are averaged, at least 1; 1 is Krum.

    Raises:
        ValueError: a field out of its range.
    """

    byzantine: int = 1
    kept: int = 1

    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.byzantine < 0 or self.kept < 1:
            raise ValueError(f"byzantine must not be negative and kept be positive: {self}")

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        """Aggregate updates.

        Args:
            updates: the clients' updates (n, P), floating point.
            rows: not used.

        Returns:
            The server's update (P,).

        Raises:
            ValueError: fewer than 2 f + 3 or m clients, or an update that is not finite.
        """
        check_finite(updates)
        return updates[self.select(updates)].mean(0)

    def select(self, updates: Tensor) -> Tensor:
        """Choose the updates with the lowest scores.

        Args:
            updates: the clients' updates (n, P).

        Returns:
            Their indices (kept,), int64, the lowest score first.

        Raises:
            ValueError: fewer than 2 f + 3 or m clients.
        """
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
    """The coordinate-wise trimmed mean (Yin et al., 2018, arXiv:1803.01498, definition 2).

    With at most `byzantine` malicious clients, each coordinate stays in the range of the honest values.

    Args:
        byzantine: number of values that are removed at each end, at least 0; there must be at least 2 byzantine + 1
            clients.

    Raises:
        ValueError: a negative number.
    """

    byzantine: int = 1

    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.byzantine < 0:
            raise ValueError(f"byzantine must not be negative: {self}")

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        """Aggregate updates.

        Args:
            updates: the clients' updates (n, P), floating point.
            rows: not used.

        Returns:
            The server's update (P,).

        Raises:
            ValueError: fewer than 2 byzantine + 1 clients, or an update that is not finite.
        """
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
    """The coordinate-wise median (Yin et al., 2018, arXiv:1803.01498, definition 1).

    For an even number of clients, it is the mean of the two middle values.
    """

    additive: ClassVar[bool] = False

    def __call__(self, updates: Tensor, rows: Tensor) -> Tensor:
        """Aggregate updates.

        Args:
            updates: the clients' updates (n, P), floating point.
            rows: not used.

        Returns:
            The server's update (P,).

        Raises:
            ValueError: no client, or an update that is not finite.
        """
        check_finite(updates)
        n = len(updates)
        if not n:
            raise ValueError("there is no update to take the median of: sample at least one client")
        ordered = updates.sort(dim=0).values
        return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
