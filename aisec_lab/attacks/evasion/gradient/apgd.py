"""Auto-PGD, algorithm 1 of Croce & Hein (2020, arXiv:2003.01690): gradient ascent that chooses its step size.

The symbols are the paper's, row by row: x^(k) is the k-th point, z the point after the plain gradient step, eta the
step size, alpha the weight of z against momentum, rho the share of steps that must raise f, w_j a checkpoint, x_max the
point of largest f so far, f_max its value. Points are stored as perturbations of the clean input, x^(k) - x.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.geometry.projections import mask_blocked, per_row
from aisec_lab.attacks.evasion.search.best import LowestMargin

ALPHA = 0.75
RHO = 0.75

# Of points (n, *input) and the positions (n,) of their rows: logits (n, K), f (n,) and its gradient (n, *input)
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def checkpoints(n_iter: int) -> list[int]:
    """The steps 0 = w_0 < w_1 < ... <= `n_iter` at which the step size is reconsidered: w_j = ceil(p_j N_iter)."""
    percent = [0, 22]  # 100 p_j: p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06)
    while percent[-1] <= 100:
        percent.append(percent[-1] + max(percent[-1] - percent[-2] - 3, 6))
    return sorted({-(-p * n_iter // 100) for p in percent[:-1]})


def algorithm_1(
    objective: Objective,
    x: Tensor,
    rows: Tensor,
    delta: Tensor,
    *,
    rule: "type[APGDState]",
    ball: Ball,
    n_iter: int,
    best: LowestMargin | None = None,
) -> Tensor:
    """Maximise f inside a ball around each row.

    Args:
        objective: logits, f and its gradient.
        x: clean inputs (N, *input).
        rows: positions (n,) of the rows to attack.
        delta: x^(0) - x of these rows (n, *input), inside ball and box.
        rule: how a step is taken and its size is chosen: `APGDState`, or in L1 `L1APGDState`.
        ball: the threat model.
        n_iter: N_iter.
        best: shown every point; a row leaves once it is adversarial there. None if no row may leave.

    Returns:
        x_max - x of the rows that did not leave.
    """
    logits, f, grad = objective(x[rows] + delta, rows)
    state = rule.begin(rows, delta, grad, f, ball.eps)
    w, last_checkpoint, k = rule.checkpoints(n_iter), 0, 0
    while True:
        if best is not None:
            best.update(state.rows, x[state.rows] + delta, logits)
            state.select(best.active_mask[state.rows])
        if k == n_iter or not len(state.rows):
            return state.delta_max
        delta = state.step(ball, x[state.rows], first=k == 0)
        logits, f, grad = objective(x[state.rows] + delta, state.rows)
        state.update(delta, grad, f)
        k += 1
        if k in w:
            state.update_step_size(k - last_checkpoint)
            last_checkpoint = k


@dataclass
class APGDState:
    """The variables of algorithm 1 after step k, for n rows; all fields share the first axis."""

    rows: Tensor  # positions in the whole batch
    delta: Tensor  # x^(k) - x
    delta_previous: Tensor  # x^(k-1) - x
    grad: Tensor  # of f at x^(k)
    f: Tensor  # f(x^(k))
    delta_max: Tensor  # x_max - x
    grad_max: Tensor  # of f at x_max
    f_max: Tensor
    eta: Tensor
    increases: Tensor  # steps since the last checkpoint that raised f
    f_max_checkpoint: Tensor  # f_max at the last checkpoint
    eta_halved: Tensor  # whether eta was halved there

    @staticmethod
    def random_start(x: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """x^(0) - x, random inside ball and box, shape of `x`."""
        return ball.sample(x, generator)

    @staticmethod
    def checkpoints(n_iter: int) -> list[int]:
        """The steps w_j, ascending, after which `update_step_size` is called."""
        return checkpoints(n_iter)

    @classmethod
    def begin(cls, rows: Tensor, delta: Tensor, grad: Tensor, f: Tensor, eps: float) -> Self:
        """The state at x^(0), with the paper's first step size eta = 2 eps."""
        zero = torch.zeros_like(f)
        return cls(rows, delta, delta, grad, f, delta, grad, f, zero + 2 * eps, zero, f, zero.bool())

    def step(self, ball: Ball, x: Tensor, first: bool) -> Tensor:
        """x^(k+1) - x (lines 3, 7 and 8); the first step has no momentum.

        The gradient is scaled to the steepest direction of the ball's norm, without coordinates that the box blocks.
        """
        gradient_step = per_row(self.eta, x) * ball.ascent_direction(mask_blocked(x, self.delta, self.grad))
        z = ball.project(x, self.delta + gradient_step)
        if first:
            return z
        momentum = self.delta - self.delta_previous
        return ball.project(x, self.delta + ALPHA * (z - self.delta) + (1 - ALPHA) * momentum)

    def update(self, delta: Tensor, grad: Tensor, f: Tensor) -> None:
        """Move to x^(k+1); it becomes x_max where f(x^(k+1)) > f_max (lines 4, 5 and 9 to 11)."""
        self.increases = self.increases + (f > self.f)
        self.delta_previous, self.delta, self.grad, self.f = self.delta, delta, grad, f
        higher = f > self.f_max
        self.delta_max = torch.where(per_row(higher, delta), delta, self.delta_max)
        self.grad_max = torch.where(per_row(higher, delta), grad, self.grad_max)
        self.f_max = torch.where(higher, f, self.f_max)

    def update_step_size(self, steps: int) -> None:
        """At checkpoint w_j, `steps` = w_j - w_(j-1): eta <- eta / 2 and x^(k+1) <- x_max (lines 12 to 15)."""
        condition_1 = self.increases < RHO * steps
        condition_2 = ~self.eta_halved & (self.f_max == self.f_max_checkpoint)
        halve = condition_1 | condition_2
        self.eta = torch.where(halve, self.eta / 2, self.eta)
        self.restart_from_best(halve)
        self.eta_halved, self.f_max_checkpoint, self.increases = halve, self.f_max, torch.zeros_like(self.increases)

    def restart_from_best(self, mask: Tensor) -> None:
        """Set x^(k+1) <- x_max in the rows of a mask (n,)."""
        self.delta = torch.where(per_row(mask, self.delta), self.delta_max, self.delta)
        self.grad = torch.where(per_row(mask, self.delta), self.grad_max, self.grad)
        self.f = torch.where(mask, self.f_max, self.f)

    def select(self, mask: Tensor) -> None:
        """Keep only the rows of a mask (n,)."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])
