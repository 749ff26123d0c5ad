"""FMN: a ball that shrinks while its worst point is adversarial, and grows while it is not."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import L0, L2, Ball, check_ball
from aisec_lab.attacks.evasion.geometry.projections import mask_blocked, per_row
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.starting_points import bisect_to_boundary, start_from
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormTracker, cosine_schedule
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, negative_margin

HALVINGS = 10  # from a starting point to the boundary


@dataclass(frozen=True)
class FMN:
    """The fast minimum-norm attack (Pintor et al., 2021, arXiv:2102.12827, algorithm 1): L0, L1, L2 and Linf.

    A step goes along the ball's steepest direction, with a length of alpha_k times the radius; the paper's step has the
    same L2 length in every norm. Projections onto ball and box are exact. Call contract: docs/evasion-attacks.md,
    minimum-norm attacks with a start; without one it starts at x. Nothing is random.

    Args:
        ball: any ball; rows adversarial inside its radius leave the search.
        steps: iterations.
        step_size: alpha_0, in units of the radius; it decays to a hundredth.
        gamma: gamma_0, share in (0, 1) by which the radius changes at first.
        goal: what makes a row adversarial.

    Raises:
        ValueError: settings outside their ranges, a start that is not adversarial, and what the call contract lists.
    """

    ball: Ball = L2(0)
    steps: int = 1000
    step_size: float = 1.0
    gamma: float = 0.05
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("FMN", self.ball)
        if self.steps < 1 or not self.step_size > 0 or not 0 < self.gamma < 1:
            raise ValueError(f"steps and step_size must be positive and gamma in (0, 1): {self}")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator, start: Tensor | None = None
    ) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            tracker = MinimumNormTracker(model, x, y, self.goal, self.ball)
            if start is not None:
                start_from(model, tracker, start)
                bisect_to_boundary(model, tracker, HALVINGS)
            rows = tracker.active_rows
            delta, epsilon = tracker.x_adv[rows] - x[rows], torch.full_like(tracker.distance[rows], torch.inf)
            for k in range(self.steps):
                if not len(rows):
                    break
                z = x[rows] + delta
                logits, loss, grad = loss_and_gradient(model, z, negative_margin(self.goal, y[rows]))
                is_adv = tracker.update(rows, z, logits)
                nearest = tracker.distance[rows]
                gamma = cosine_schedule(self.gamma, 0.001, k / self.steps)
                epsilon = torch.where(
                    is_adv, torch.minimum(self._rescale(epsilon, -gamma), nearest), self._rescale(epsilon, gamma)
                )
                no_adv = nearest.isinf()
                if no_adv.any():
                    # a little more than the distance of the linearised boundary, as points on it are not adversarial
                    to_boundary = self.ball.step_to_hyperplane(z[no_adv], grad[no_adv], -loss[no_adv])
                    boundary_distance = self.ball.norm(delta[no_adv]) + self.ball.norm(to_boundary)
                    epsilon[no_adv] = self._rescale(boundary_distance, gamma)
                alpha = cosine_schedule(self.step_size, self.step_size / 100, k / self.steps)
                step = self.ball.ascent_direction(mask_blocked(x[rows], delta, grad))
                delta = self.ball.project_per_row(x[rows], delta + per_row(alpha * epsilon, delta) * step, epsilon)
                alive = nearest > self.ball.eps
                if not alive.all():
                    rows, delta, epsilon = rows[alive], delta[alive], epsilon[alive]
            return tracker.result(model)

    def _rescale(self, epsilon: Tensor, gamma: float) -> Tensor:
        """The radius (n,) changed by the share gamma; in L0 by one coordinate at least."""
        rescaled = epsilon * (1 + gamma)
        if not isinstance(self.ball, L0):
            return rescaled
        whole = rescaled.floor()
        return torch.maximum(whole, epsilon + 1) if gamma > 0 else torch.minimum(whole, epsilon - 1).clamp(min=1)
