"""DDN: gradient steps set the direction of the perturbation, success sets its norm."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import L2, check_ball
from aisec_lab.attacks.evasion.geometry.projections import TINY, clip_to_box, mask_blocked, per_row
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormTracker, cosine_schedule
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import CrossEntropy
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, signed_loss

FIRST_EPSILON = 1.0  # norm of the first perturbation, before it grows or shrinks


@dataclass(frozen=True)
class DDN:
    """Decoupled direction and norm (Rony et al., 2019, arXiv:1811.09600, algorithm 1): minimum-norm in L2.

    Call contract: docs/evasion-attacks.md, minimum-norm attacks.

    Args:
        ball: L2; rows adversarial inside its radius leave the search.
        steps: K, iterations.
        gamma: share in (0, 1) by which the norm epsilon grows and shrinks.
        goal: what makes a row adversarial.

    Raises:
        ValueError: another ball, settings outside their ranges, and what the call contract lists.
    """

    ball: L2 = L2(0)
    steps: int = 100
    gamma: float = 0.05
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("DDN", self.ball, L2)
        if self.steps < 1 or not 0 < self.gamma < 1:
            raise ValueError(f"steps must be positive and gamma in (0, 1): {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            tracker = MinimumNormTracker(model, x, y, self.goal, self.ball)
            rows = tracker.active_rows
            delta, epsilon = torch.zeros_like(x[rows]), torch.full_like(tracker.distance[rows], FIRST_EPSILON)
            for k in range(self.steps):
                if not len(rows):
                    break
                x_k = x[rows] + delta
                logits, _, grad = loss_and_gradient(model, x_k, signed_loss(CrossEntropy(), self.goal, y[rows]))
                is_adv = tracker.update(rows, x_k, logits)
                alpha = cosine_schedule(1.0, 0.01, k / self.steps)
                g = alpha * self.ball.ascent_direction(mask_blocked(x[rows], delta, grad))
                delta = delta + g
                epsilon = epsilon * torch.where(is_adv, 1 - self.gamma, 1 + self.gamma)
                delta = delta * per_row(epsilon / (self.ball.norm(delta) + TINY), delta)
                delta = clip_to_box(x[rows], delta)
                active = tracker.distance[rows] > self.ball.eps
                if not active.all():
                    rows, delta, epsilon = rows[active], delta[active], epsilon[active]
            return tracker.result(model)
