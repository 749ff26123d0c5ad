"""Brendel & Bethge's attack: along the boundary between classes, by steps whose length is bounded."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import L1, L2, Ball, Linf, check_ball
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.starting_points import bisect_to_boundary, find_start, start_from
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormTracker
from aisec_lab.attacks.evasion.minimum_norm.trust_region import step_onto
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, negative_margin

HALVINGS = 10  # from the starting point to the boundary
OVERSHOOT = 0.1  # share of the margin by which a step goes beyond the boundary, or stays behind it
DECAYS, DECAY = 20, 0.5  # times that the radius falls, and to which share of itself


@dataclass(frozen=True)
class BrendelBethge:
    """Brendel & Bethge's attack (Brendel et al., 2019, arXiv:1907.01003): minimum-norm in L1, L2 and Linf.

    From a point that has won, each step goes to the nearest point to the input on the boundary, taken to be flat and
    its normal averaged over steps, that is at most `step_size` times the number of coordinates away (`step_onto`).

    Args of the call:
        model, x, y: as for `FMN`.
        generator: source of the noise from which a search without `start` begins.
        start: points that have won (N, *input), one for each row; those of rows that are won as they are are not
            looked at. Without it uniform noise, and where none of it has won, the point that is first won uphill.

    Returns, raises: as for `FMN`; also ValueError for a start that has not won, or is no point of the box.
    """

    ball: Ball = L2(0)  # the norm, and a radius within which a row needs no further search
    steps: int = 1000
    step_size: float = 0.001
    momentum: float = 0.8
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("BrendelBethge", self.ball, Linf, L2, L1, instead="FMN")
        if self.steps < 1 or not self.step_size > 0 or not 0 <= self.momentum < 1:
            raise ValueError(f"steps and step_size must be positive and momentum in [0, 1): {self}")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator, start: Tensor | None = None
    ) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            found = MinimumNormTracker(model, x, y, self.goal, self.ball)
            if start is None:
                find_start(model, found, generator)
            else:
                start_from(model, found, start)
            bisect_to_boundary(model, found, HALVINGS)
            self._follow(model, found)
            return found.result(model)

    def _follow(self, model: nn.Module, found: MinimumNormTracker) -> None:
        """Along the boundary, from the nearest points so far, of the rows that stand outside the ball."""
        rows = ((found.distance > self.ball.eps) & found.distance.isfinite()).nonzero().squeeze(1)
        z, normal = found.x_adv[rows], torch.zeros_like(found.x[rows])
        for k in range(self.steps):
            if not len(rows):
                return
            logits, gain, grad = loss_and_gradient(
                model,
                z,
                negative_margin(self.goal, found.y[rows]),
            )
            found.update(rows, z, logits)
            normal = self.momentum * normal + (1 - self.momentum) * grad if k else grad
            rise = -gain * torch.where(gain > 0, 1 - OVERSHOOT, 1 + OVERSHOOT)
            radius = self.step_size * z[0].numel() * DECAY ** (DECAYS * (k + 1) // self.steps)
            z = step_onto(self.ball, found.x[rows], z, normal, rise, torch.full_like(rise, radius))
            alive = found.distance[rows] > self.ball.eps
            if not alive.all():
                rows, z, normal = rows[alive], z[alive], normal[alive]
