"""Carlini & Wagner's attack in L2: one objective of distance and margin, with a binary search for their weight."""

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

INSIDE = 0.999999  # keeps w finite at the faces of the box
BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8  # of Adam
CHECKS = 10  # times in a run of Adam that progress is checked
PROGRESS = 0.9999  # a row leaves the run unless its objective fell to this share since the last check


@dataclass(frozen=True)
class CarliniWagner:
    """The L2 attack of Carlini & Wagner (2017, arXiv:1608.04644, section VI.A): minimum-norm.

    Adam on w, with x' = (tanh w + 1) / 2, minimises |x' - x|^2 + c max(margin, 0); c by binary search in each row. Call
    contract: docs/evasion-attacks.md, minimum-norm attacks.

    Args:
        ball: L2; rows adversarial inside its radius leave the search.
        steps: iterations of Adam for each c.
        searches: values of c that are tried.
        step_size: Adam's learning rate, in w.
        first_c: first value of c.
        goal: what makes a row adversarial.

    Raises:
        ValueError: another ball, settings not positive, and what the call contract lists.
    """

    ball: L2 = L2(0)
    steps: int = 1000
    searches: int = 9
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
            tracker = MinimumNormTracker(model, x, y, self.goal, self.ball)
            binary_search_c(tracker.distance, self.first_c, self.searches, partial(self._minimise, model, tracker))
            return tracker.result(model)

    def _minimise(self, model: nn.Module, tracker: MinimumNormTracker, c: Tensor) -> Tensor:
        """Run Adam on the active rows, with weights c (N,); return which rows (N,) had an adversarial point."""
        ever_adv = torch.zeros_like(tracker.distance, dtype=torch.bool)
        rows = tracker.active_rows
        w = torch.atanh(INSIDE * (2 * tracker.x[rows] - 1))
        first_moment, second_moment = torch.zeros_like(w), torch.zeros_like(w)
        checked = torch.full_like(c[rows], torch.inf)
        for t in range(1, self.steps + 1):
            if not len(rows):
                break
            x, tanh = tracker.x[rows], w.tanh()
            z = (tanh + 1) / 2
            logits, gain, grad = loss_and_gradient(model, z, negative_margin(self.goal, tracker.y[rows]))
            is_adv = tracker.update(rows, z, logits)
            ever_adv[rows] |= is_adv
            weight = torch.where(is_adv, 0.0, c[rows])
            slope = (2 * (z - x) - per_row(weight, x) * grad) * (1 - tanh**2) / 2
            first_moment = BETA_1 * first_moment + (1 - BETA_1) * slope
            second_moment = BETA_2 * second_moment + (1 - BETA_2) * slope**2
            m_hat, v_hat = first_moment / (1 - BETA_1**t), second_moment / (1 - BETA_2**t)
            w = w - self.step_size * m_hat / (v_hat.sqrt() + TINY)
            alive = tracker.distance[rows] > self.ball.eps
            if t % max(self.steps // CHECKS, 1) == 0:
                objective = self.ball.norm(z - x) ** 2 - weight * gain
                alive &= objective < PROGRESS * checked
                checked = objective
            if not alive.all():
                rows, w, first_moment, second_moment, checked = (
                    part[alive] for part in (rows, w, first_moment, second_moment, checked)
                )
        return ever_adv
