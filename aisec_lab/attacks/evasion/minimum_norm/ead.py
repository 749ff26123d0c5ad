"""EAD: Carlini & Wagner's objective with an L1 term, minimised by iterative shrinkage."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import L1, L2, Ball, check_ball
from aisec_lab.attacks.evasion.geometry.projections import clip_to_box, per_row
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormTracker, binary_search_c
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, negative_margin


@dataclass(frozen=True)
class EAD:
    """The elastic-net attack (Chen et al., 2018, arXiv:1709.04114, algorithm 1): minimum-norm in L1.

    FISTA minimises c max(margin, 0) + beta |x' - x|_1 + |x' - x|_2^2; c by binary search in each row. Call contract:
    docs/evasion-attacks.md, minimum-norm attacks; distances are in L1 by either decision rule.

    Args:
        ball: L1; rows adversarial inside its radius leave the search.
        steps: iterations of FISTA for each c.
        searches: values of c that are tried.
        step_size: first step size of FISTA; it falls with the square root of the remaining share of steps.
        beta: weight of the L1 term, and the shrinkage threshold.
        first_c: first value of c.
        elastic_net: decision rule: whether to keep the adversarial point of least beta |x' - x|_1 + |x' - x|_2^2,
            instead of least |x' - x|_1.
        goal: what makes a row adversarial.

    Raises:
        ValueError: another ball, settings not positive, and what the call contract lists.
    """

    ball: L1 = L1(0)
    steps: int = 1000
    searches: int = 9
    step_size: float = 0.01
    beta: float = 0.01
    first_c: float = 0.001
    elastic_net: bool = False
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("EAD", self.ball, L1, instead="CarliniWagner in L2, or FMN")
        if self.steps < 1 or self.searches < 1 or not min(self.step_size, self.beta, self.first_c) > 0:
            raise ValueError(f"steps, searches, step_size, beta and first_c must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            tracker = EADTracker(model, x, y, self.goal, self.ball, self.beta if self.elastic_net else None)
            binary_search_c(tracker.distance, self.first_c, self.searches, partial(self._minimise, model, tracker))
            return tracker.result(model)

    def _minimise(self, model: nn.Module, tracker: "EADTracker", c: Tensor) -> Tensor:
        """Run FISTA on the active rows, with weights c (N,); return which rows (N,) had an adversarial point."""
        ever_adv = torch.zeros_like(tracker.distance, dtype=torch.bool)
        rows = tracker.active_rows
        delta = extrapolated = torch.zeros_like(tracker.x[rows])  # x^(k) - x and y^(k) - x of algorithm 1
        for k in range(self.steps):
            if not len(rows):
                break
            x = tracker.x[rows]
            _, gain, grad = loss_and_gradient(model, x + extrapolated, negative_margin(self.goal, tracker.y[rows]))
            weight = torch.where(gain > 0, 0.0, c[rows])
            step = self.step_size * (1 - k / self.steps) ** 0.5
            delta_previous, delta = (
                delta,
                self._shrink(x, extrapolated - step * (2 * extrapolated - per_row(weight, x) * grad)),
            )
            extrapolated = delta + k / (k + 3) * (delta - delta_previous)
            with torch.no_grad():
                ever_adv[rows] |= tracker.update(rows, x + delta, model(x + delta))
            # where shrinkage leaves nothing, c is too small, as later steps are smaller
            moved = ((delta != 0) | (delta_previous != 0)).flatten(1).any(1)
            alive = (tracker.distance[rows] > self.ball.eps) & moved
            if not alive.all():
                rows, delta, extrapolated = (part[alive] for part in (rows, delta, extrapolated))
        return ever_adv

    def _shrink(self, x: Tensor, delta: Tensor) -> Tensor:
        """S_beta, eq. 5: shrink changes by beta, to 0 if they are smaller; inside the box."""
        return clip_to_box(x, delta.sign() * (delta.abs() - self.beta).clamp(min=0))


class EADTracker(MinimumNormTracker):
    """A `MinimumNormTracker` in L1 that, if given a beta, keeps the points of least elastic-net distance."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal, ball: Ball, beta: float | None) -> None:
        super().__init__(model, x, y, goal, ball)
        self.beta, self.lowest = beta, self.score.clone()

    def retain(self, rows: Tensor, z: Tensor, score: Tensor) -> None:
        if self.beta is None:
            super().retain(rows, z, score)
            return
        length = torch.where(score.isfinite(), elastic(z - self.x[rows], self.beta), torch.inf)
        shorter = length < self.lowest[rows]
        self.x_adv[rows[shorter]], self.score[rows[shorter]], self.lowest[rows[shorter]] = (
            z[shorter],
            score[shorter],
            length[shorter],
        )


def elastic(delta: Tensor, beta: float) -> Tensor:
    """The elastic-net distance (N,), beta |delta|_1 + |delta|_2^2, of perturbations (N, *input)."""
    return beta * L1(0).norm(delta) + L2(0).norm(delta) ** 2
