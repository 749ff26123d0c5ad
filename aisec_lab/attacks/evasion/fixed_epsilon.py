"""A minimum-norm attack, held to a budget."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormAttack
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted


@dataclass(frozen=True)
class FixedEpsilon:
    """Any minimum-norm attack as an attack of fixed eps: what it finds inside a ball, as FAB serves AutoAttack.

    Args of the call, raises: those of the attack.

    Returns:
        Adversarial inputs, shape of `x`, inside ball and box; a row for which none was found is returned as it is.
        It leaves the search as soon as a point inside the ball has won.
    """

    ball: Ball
    attack: MinimumNormAttack  # its own ball is replaced

    def __post_init__(self) -> None:
        self._bound()  # an attack that does not know the norm says so

    @property
    def goal(self) -> Goal:
        """The attack's."""
        return getattr(self.attack, "goal", Untargeted())

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        found = self._bound()(model, x, y, generator=generator)
        return torch.where(per_row(found.distance <= self.ball.eps, x), found.x_adv, x)

    def _bound(self) -> MinimumNormAttack:
        return replace(self.attack, ball=self.ball)  # type: ignore[type-var]
