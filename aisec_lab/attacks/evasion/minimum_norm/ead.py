"""EAD: the attack of Carlini and Wagner with an L1 term, by iterative shrinkage."""

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

    FISTA minimises c max(margin, 0) + beta |x' - x|_1 + |x' - x|_2^2; c by bisection for each row. Of the points that
    win it keeps that of least L1 distance, or with `elastic_net` that of least beta |x' - x|_1 + |x' - x|_2^2.

    Args of the call, returns, raises: as for `FMN`; distances are in L1 by either rule.
    """

    ball: L1 = L1(0)
    steps: int = 1000  # of FISTA, for each c
    searches: int = 9  # values of c
    step_size: float = 0.01
    beta: float = 0.01
    first_c: float = 0.001
    elastic_net: bool = False  # the decision rule
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("EAD", self.ball, L1, instead="CarliniWagner in L2, or FMN")
        if self.steps < 1 or self.searches < 1 or not min(self.step_size, self.beta, self.first_c) > 0:
            raise ValueError(f"steps, searches, step_size, beta and first_c must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            found = Sparsest(model, x, y, self.goal, self.ball, self.beta if self.elastic_net else None)
            binary_search_c(found.distance, self.first_c, self.searches, partial(self._minimise, model, found))
            return found.result(model)

    def _minimise(self, model: nn.Module, found: "Sparsest", c: Tensor) -> Tensor:
        """One run of FISTA for each row that is left, with its own c (N,): whether some point of it has won (N,)."""
        ever = torch.zeros_like(found.distance, dtype=torch.bool)
        rows = found.active_rows
        delta = ahead = torch.zeros_like(found.x[rows])  # x^(k) and y^(k) of algorithm 1, from x
        for k in range(self.steps):
            if not len(rows):
                break
            x = found.x[rows]
            _, gain, grad = loss_and_gradient(
                model,
                x + ahead,
                negative_margin(self.goal, found.y[rows]),
            )
            weight = torch.where(gain > 0, 0.0, c[rows])
            step = self.step_size * (1 - k / self.steps) ** 0.5
            before, delta = delta, self._shrunk(x, ahead - step * (2 * ahead - per_row(weight, x) * grad))
            ahead = delta + k / (k + 3) * (delta - before)
            with torch.no_grad():
                ever[rows] |= found.update(rows, x + delta, model(x + delta))
            moved = ((delta != 0) | (before != 0)).flatten(1).any(1)  # else c is too small, and later steps are smaller
            alive = (found.distance[rows] > self.ball.eps) & moved
            if not alive.all():
                rows, delta, ahead = (part[alive] for part in (rows, delta, ahead))
        return ever

    def _shrunk(self, x: Tensor, delta: Tensor) -> Tensor:
        """S_beta, eq. 5: changes of at most beta are none, others shrink by it; inside the box."""
        return clip_to_box(x, delta.sign() * (delta.abs() - self.beta).clamp(min=0))


class Sparsest(MinimumNormTracker):
    """As `MinimumNormTracker` in L1, or, with a beta, the points of least elastic-net distance; `distance` is in L1
    anyhow."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal, ball: Ball, beta: float | None) -> None:
        super().__init__(model, x, y, goal, ball)
        self.beta, self.least = beta, self.score.clone()

    def retain(self, rows: Tensor, z: Tensor, score: Tensor) -> None:
        if self.beta is None:
            super().retain(rows, z, score)
            return
        net = torch.where(score.isfinite(), elastic(z - self.x[rows], self.beta), torch.inf)
        less = net < self.least[rows]
        self.x_adv[rows[less]], self.score[rows[less]], self.least[rows[less]] = z[less], score[less], net[less]


def elastic(delta: Tensor, beta: float) -> Tensor:
    """The elastic-net length of perturbations (N, *input): shape (N,)."""
    return beta * L1(0).norm(delta) + L2(0).norm(delta) ** 2
