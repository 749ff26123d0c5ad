"""DDN: the direction by gradient, the length by success."""

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

FIRST_EPSILON = 1.0


@dataclass(frozen=True)
class DDN:
    """Decoupled direction and norm (Rony et al., 2019, arXiv:1811.09600, algorithm 1): L2 only.

    Args of the call, returns, raises: as for `FMN`.
    """

    ball: L2 = L2(0)
    steps: int = 100
    gamma: float = 0.05  # share by which the length grows and shrinks
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("DDN", self.ball, L2)
        if self.steps < 1 or not 0 < self.gamma < 1:
            raise ValueError(f"steps must be positive and gamma in (0, 1): {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            found = MinimumNormTracker(model, x, y, self.goal, self.ball)
            rows = found.active_rows
            delta, epsilon = torch.zeros_like(x[rows]), torch.full_like(found.distance[rows], FIRST_EPSILON)
            for k in range(self.steps):
                if not len(rows):
                    break
                z = x[rows] + delta
                logits, _, grad = loss_and_gradient(
                    model,
                    z,
                    signed_loss(CrossEntropy(), self.goal, y[rows]),
                )
                won = found.update(rows, z, logits)
                step = cosine_schedule(1.0, 0.01, k / self.steps) * self.ball.ascent_direction(
                    mask_blocked(x[rows], delta, grad)
                )
                epsilon = epsilon * torch.where(won, 1 - self.gamma, 1 + self.gamma)
                delta = delta + step
                delta = clip_to_box(x[rows], delta * per_row(epsilon / (self.ball.norm(delta) + TINY), delta))
                alive = found.distance[rows] > self.ball.eps
                if not alive.all():
                    rows, delta, epsilon = rows[alive], delta[alive], epsilon[alive]
            return found.result(model)
