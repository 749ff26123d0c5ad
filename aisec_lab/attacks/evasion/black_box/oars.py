"""OARS: how a query-based attack adapts to a service that rejects similar queries."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted


@dataclass(frozen=True)
class OARS:
    """Oracle-guided adaptive rejection sampling (Feng et al., 2023, arXiv:2303.06280): adapt, then resample.

    A stateful defense rejects a query that is too similar to an earlier one, and a rejection tells where its threshold
    is. The attack first searches, by bisection, the smallest proposals that are hardly ever rejected. Later, it draws a
    rejected proposal anew. It is a setting of an attack, which says what it adapts: `HopSkipJump(oars=OARS())`,
    `Boundary(oars=OARS())`, `Square(oars=OARS())`. The model is one with a reject option, such as
    `Oracle(model, monitors=[...], rejects=True)`; on any other, nothing changes. Probes count as queries.

    Defaults are those of the authors' code for HopSkipJump.

    Args:
        steps: halvings of the search, at least 0.
        probes: queries of each halving, at least 1.
        rate: share of rejected probes, in [0, 1), up to which a size is accepted.
        attempts: how often the proposals of one gradient estimate are drawn, at least 1.

    Raises:
        ValueError: settings outside their ranges.
    """

    steps: int = 10
    probes: int = 20
    rate: float = 0.05
    attempts: int = 20

    def __post_init__(self) -> None:
        if self.steps < 0 or self.probes < 1 or not 0 <= self.rate < 1 or self.attempts < 1:
            raise ValueError(
                f"steps must be at least 0, probes and attempts at least 1, and rate lie in [0, 1): {self}"
            )

    def smallest(self, low: Tensor, high: Tensor, rejected: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Search the smallest size of proposals that are rejected at most at `rate`.

        Args:
            low: sizes (n,), too small.
            high: sizes (n,), the largest that are allowed.
            rejected: queries a proposal of each size (n,), the second argument numbers them from 0; returns which are
                rejected (n,).

        Returns:
            Sizes (n,), `high` where nothing smaller will do.
        """
        low, high = low.clone(), high.clone()
        for step in range(self.steps):
            middle, count = (low + high) / 2, torch.zeros_like(low)
            for probe in range(self.probes):
                count += rejected(middle, step * self.probes + probe)
            accepted = count <= self.rate * self.probes
            low, high = torch.where(accepted, low, middle), torch.where(accepted, middle, high)
        return high


def check_rejection_goal(oars: OARS | None, goal: Goal) -> None:
    """Refuse the goal `Untargeted` for an attack with OARS, ValueError: a rejected query would be a success."""
    if oars is not None and goal == Untargeted():
        raise ValueError(
            "with the goal Untargeted a rejected query counts as misclassified: give an attack with OARS the goal "
            "EvadeDetector or Targeted"
        )
