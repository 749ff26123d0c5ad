"""Brendel & Bethge's attack: steps along the decision boundary inside a trust region."""

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
OVERSHOOT = 0.1  # share of the margin by which steps overshoot the boundary, or stop before it
DECAYS, DECAY = 20, 0.5  # how often the radius falls, and by which factor


@dataclass(frozen=True)
class BrendelBethge:
    """Brendel & Bethge's attack (Brendel et al., 2019, arXiv:1907.01003): minimum-norm in L1, L2 and Linf.

    From an adversarial point, each step goes to the point of the linearised boundary nearest to x within a Euclidean
    trust region (`step_onto`); the boundary's normal is averaged over steps. Call contract: docs/evasion-attacks.md,
    minimum-norm attacks with a start; without one it starts from uniform noise, or, if no noise is adversarial, by
    gradient ascent.

    Args:
        ball: Linf, L2 or L1; rows adversarial inside its radius leave the search.
        steps: iterations.
        step_size: radius of the trust region, in units of the number of coordinates; it decays during the search.
        momentum: weight in [0, 1) of earlier normals.
        goal: what makes a row adversarial.

    Raises:
        ValueError: another ball, settings outside their ranges, a start that is not adversarial, and what the call
            contract lists.
    """

    ball: Ball = L2(0)
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
            tracker = MinimumNormTracker(model, x, y, self.goal, self.ball)
            if start is None:
                find_start(model, tracker, generator)
            else:
                start_from(model, tracker, start)
            bisect_to_boundary(model, tracker, HALVINGS)
            self._follow_boundary(model, tracker)
            return tracker.result(model)

    def _follow_boundary(self, model: nn.Module, tracker: MinimumNormTracker) -> None:
        """Walk along the boundary from the nearest points so far, in the rows whose points lie outside the ball."""
        rows = ((tracker.distance > self.ball.eps) & tracker.distance.isfinite()).nonzero().squeeze(1)
        z, normal = tracker.x_adv[rows], torch.zeros_like(tracker.x[rows])
        for k in range(self.steps):
            if not len(rows):
                return
            logits, gain, grad = loss_and_gradient(model, z, negative_margin(self.goal, tracker.y[rows]))
            tracker.update(rows, z, logits)
            normal = self.momentum * normal + (1 - self.momentum) * grad if k else grad
            rise = -gain * torch.where(gain > 0, 1 - OVERSHOOT, 1 + OVERSHOOT)
            radius = self.step_size * z[0].numel() * DECAY ** (DECAYS * (k + 1) // self.steps)
            z = step_onto(self.ball, tracker.x[rows], z, normal, rise, torch.full_like(rise, radius))
            alive = tracker.distance[rows] > self.ball.eps
            if not alive.all():
                rows, z, normal = rows[alive], z[alive], normal[alive]
