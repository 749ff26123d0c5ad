"""The attack of Carlini and Wagner in L2: length and margin in one objective, their balance by bisection."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import L2, check_ball
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormTracker, binary_search_c
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, negative_margin

INSIDE = 0.999999  # the faces of the box lie at infinity in w
BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8  # of Adam
CHECKS = 10  # times in a run of Adam that progress is looked at
PROGRESS = 0.9999  # what a tenth of the steps must bring the objective down to, or the row leaves the run


@dataclass(frozen=True)
class CarliniWagner:
    """The L2 attack of Carlini & Wagner (2017, arXiv:1608.04644, section VI.A).

    Adam on w, x' = (tanh w + 1) / 2, minimises |x' - x|^2 + c max(margin, 0); c by bisection for each row.

    Args of the call, returns, raises: as for `FMN`.
    """

    ball: L2 = L2(0)
    steps: int = 1000  # of Adam, for each c
    searches: int = 9  # values of c
    step_size: float = 0.01
    first_c: float = 0.001
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("CarliniWagner", self.ball, L2)
        if self.steps < 1 or self.searches < 1 or not self.step_size > 0 or not self.first_c > 0:
            raise ValueError(f"steps, searches, step_size and first_c must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            found = MinimumNormTracker(model, x, y, self.goal, self.ball)
            binary_search_c(found.distance, self.first_c, self.searches, partial(self._minimise, model, found))
            return found.result(model)

    def _minimise(self, model: nn.Module, found: MinimumNormTracker, c: Tensor) -> Tensor:
        """One run of Adam for each row that is left, with its own c (N,): whether some point of it has won (N,)."""
        ever = torch.zeros_like(found.distance, dtype=torch.bool)
        rows = found.active_rows
        w = torch.atanh(INSIDE * (2 * found.x[rows] - 1))
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        checked = torch.full_like(c[rows], torch.inf)
        for t in range(1, self.steps + 1):
            if not len(rows):
                break
            x, tanh = found.x[rows], w.tanh()
            z = (tanh + 1) / 2
            logits, gain, grad = loss_and_gradient(
                model,
                z,
                negative_margin(self.goal, found.y[rows]),
            )
            won = found.update(rows, z, logits)
            ever[rows] |= won
            weight = torch.where(won, 0.0, c[rows])
            slope = (2 * (z - x) - per_row(weight, x) * grad) * (1 - tanh**2) / 2
            mean, square = BETA_1 * mean + (1 - BETA_1) * slope, BETA_2 * square + (1 - BETA_2) * slope**2
            w = w - self.step_size * (mean / (1 - BETA_1**t)) / ((square / (1 - BETA_2**t)).sqrt() + TINY)
            alive = found.distance[rows] > self.ball.eps
            if t % max(self.steps // CHECKS, 1) == 0:
                objective = self.ball.norm(z - x) ** 2 - weight * gain
                alive &= objective < PROGRESS * checked
                checked = objective
            if not alive.all():
                rows, w, mean, square, checked = (part[alive] for part in (rows, w, mean, square, checked))
        return ever
