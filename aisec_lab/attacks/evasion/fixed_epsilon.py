"""Minimum-norm attacks as attacks inside a ball of fixed radius."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormAttack
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted


@dataclass(frozen=True)
class FixedEpsilon:
    """A minimum-norm attack as an attack inside a ball of fixed radius, as AutoAttack uses FAB.

    Call contract: docs/evasion-attacks.md. A row leaves the search once it is adversarial inside the ball.

    Args:
        ball: the threat model.
        attack: the minimum-norm attack; its own ball is replaced.

    Returns:
        Of the call: adversarial inputs, shape of `x`, inside ball and box; rows that are not adversarial stay
        unchanged.

    Raises:
        ValueError: a ball that the attack does not support, and what the call contract lists.
    """

    ball: Ball
    attack: MinimumNormAttack

    def __post_init__(self) -> None:
        self._attack_in_ball()  # raise the attack's error for an unsupported norm now

    @property
    def goal(self) -> Goal:
        """The goal of the attack."""
        return getattr(self.attack, "goal", Untargeted())

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        result = self._attack_in_ball()(model, x, y, generator=generator)
        return torch.where(per_row(result.distance <= self.ball.eps, x), result.x_adv, x)

    def _attack_in_ball(self) -> MinimumNormAttack:
        """The attack with this ball."""
        return replace(self.attack, ball=self.ball)  # type: ignore[type-var]
