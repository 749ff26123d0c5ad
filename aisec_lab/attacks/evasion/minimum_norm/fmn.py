"""FMN: a ball that shrinks while its best point wins, and grows while it does not."""

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
    """Fast minimum-norm attack (Pintor et al., 2021, arXiv:2102.12827, algorithm 1): L0, L1, L2 and Linf.

    Here a step goes along the ball's own steepest direction, alpha_k times the radius far; the paper's has an L2 length
    that is the same whatever the norm and the number of pixels. Projections are exact, box included.

    Args of the call:
        model: classifier in evaluation mode; inputs in [0, 1], shape (N, *input), to logits (N, K).
        x, y: clean inputs (N, *input) and their true classes (N,), int64; with the goal `Targeted`, the targets.
        generator: unused; nothing here is random.
        start: points that have won (N, *input), one for each row, to begin at in place of the rows themselves.

    Returns:
        `MinimumNormResult`: the nearest point seen for each row, inside the box, confirmed to win as it is returned. A
        row that is won as it is comes back untouched at distance 0, one for which nothing was found at `inf`.

    Raises:
        ValueError: pixels outside [0, 1], a class outside 0..K-1, a model in training mode, one that answers with
            probabilities and has not declared them (`Reading`), or a start that has not won or is no point of the box.
    """

    ball: Ball = L2(0)  # the norm, and a radius within which a row needs no further search
    steps: int = 1000
    step_size: float = 1.0  # alpha_0, in units of the radius
    gamma: float = 0.05  # gamma_0, share by which the radius changes
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
            found = MinimumNormTracker(model, x, y, self.goal, self.ball)
            if start is not None:
                start_from(model, found, start)
                bisect_to_boundary(model, found, HALVINGS)
            rows = found.active_rows
            delta, epsilon = found.x_adv[rows] - x[rows], torch.full_like(found.distance[rows], torch.inf)
            for k in range(self.steps):
                if not len(rows):
                    break
                z = x[rows] + delta
                logits, loss, grad = loss_and_gradient(
                    model,
                    z,
                    negative_margin(self.goal, y[rows]),
                )
                won = found.update(rows, z, logits)
                best = found.distance[rows]
                gamma = cosine_schedule(self.gamma, 0.001, k / self.steps)
                epsilon = torch.where(
                    won, torch.minimum(self._turned(epsilon, -gamma), best), self._turned(epsilon, gamma)
                )
                never = best.isinf()
                if never.any():
                    # as far as the boundary were it flat, and a little farther: onto it would never be beyond it
                    ahead = self.ball.crossing(z[never], grad[never], -loss[never])
                    flat = self.ball.norm(delta[never]) + self.ball.norm(ahead)
                    epsilon[never] = self._turned(flat, gamma)
                alpha = cosine_schedule(self.step_size, self.step_size / 100, k / self.steps)
                step = self.ball.ascent_direction(mask_blocked(x[rows], delta, grad))
                delta = self.ball.within(x[rows], delta + per_row(alpha * epsilon, delta) * step, epsilon)
                alive = best > self.ball.eps
                if not alive.all():
                    rows, delta, epsilon = rows[alive], delta[alive], epsilon[alive]
            return found.result(model)

    def _turned(self, epsilon: Tensor, gamma: float) -> Tensor:
        """The radius after a change by the share gamma; in L0 by one coordinate at least."""
        turned = epsilon * (1 + gamma)
        if not isinstance(self.ball, L0):
            return turned
        whole = turned.floor()
        return torch.maximum(whole, epsilon + 1) if gamma > 0 else torch.minimum(whole, epsilon - 1).clamp(min=1)
