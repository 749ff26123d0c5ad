"""How Auto-PGD steps and when it halves its step (Croce & Hein, 2020, arXiv:2003.01690, algorithm 1)."""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.geometry.projections import mask_blocked, per_row

ALPHA = 0.75  # weight of the new step; the rest is momentum
RHO = 0.75  # share of steps that must raise the loss between two checkpoints


def checkpoints(steps: int) -> list[int]:
    """The steps 0 = w_0 < w_1 < ... <= `steps` at which the step size is looked at."""
    percent = [0, 22]  # the paper's p_j, in whole numbers
    while percent[-1] <= 100:
        percent.append(percent[-1] + max(percent[-1] - percent[-2] - 3, 6))
    return sorted({-(-p * steps // 100) for p in percent[:-1]})


@dataclass
class APGDState:
    """Rows on their way up, in the symbols of algorithm 1; all fields share the first axis."""

    rows: Tensor  # positions in the whole batch
    delta: Tensor  # x^(k) - x
    previous: Tensor  # x^(k-1) - x
    grad: Tensor  # of f at x^(k)
    f: Tensor  # loss at x^(k)
    delta_max: Tensor  # x_max - x
    grad_max: Tensor
    f_max: Tensor
    eta: Tensor  # step size
    increases: Tensor  # steps since the last checkpoint that raised f
    f_max_checked: Tensor  # f_max at the last checkpoint
    step_halved: Tensor  # whether eta was halved there

    @staticmethod
    def random_start(x: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """A random perturbation inside ball and box, shape of `x`."""
        return ball.sample(x, generator)

    @staticmethod
    def checkpoints(steps: int) -> list[int]:
        """The steps at which `check` is due, in ascending order."""
        return checkpoints(steps)

    @classmethod
    def begin(cls, rows: Tensor, delta: Tensor, grad: Tensor, f: Tensor, eps: float) -> Self:
        """Rows at their starts delta, inside a ball of radius eps."""
        zero = torch.zeros_like(f)
        return cls(rows, delta, delta, grad, f, delta, grad, f, zero + 2 * eps, zero, f, zero.bool())

    def retain(self, mask: Tensor) -> None:
        """Let go of the rows outside `mask`."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])

    def step(self, ball: Ball, x: Tensor, first: bool) -> Tensor:
        """The perturbation to go on to, inside the ball around x (n, *input) and the box."""
        step = per_row(self.eta, x) * ball.ascent_direction(mask_blocked(x, self.delta, self.grad))
        z = ball.project(x, self.delta + step)
        if first:
            return z
        return ball.project(x, self.delta + ALPHA * (z - self.delta) + (1 - ALPHA) * (self.delta - self.previous))

    def move(self, delta: Tensor, grad: Tensor, f: Tensor) -> None:
        """Go on to delta, and remember it where it is the highest so far."""
        self.increases = self.increases + (f > self.f)
        self.previous, self.delta, self.grad, self.f = self.delta, delta, grad, f
        higher = f > self.f_max
        self.delta_max = torch.where(per_row(higher, delta), delta, self.delta_max)
        self.grad_max = torch.where(per_row(higher, delta), grad, self.grad_max)
        self.f_max = torch.where(higher, f, self.f_max)

    def update_step_size(self, steps: int) -> None:
        """At a checkpoint, `steps` after the last: halve eta where f hardly rose, and go on from the highest point."""
        stuck = (self.increases < RHO * steps) | (~self.step_halved & (self.f_max == self.f_max_checked))
        self.eta = torch.where(stuck, self.eta / 2, self.eta)
        self.restart_from_best(stuck)
        self.step_halved, self.f_max_checked, self.increases = stuck, self.f_max, torch.zeros_like(self.increases)

    def restart_from_best(self, where: Tensor) -> None:
        """Go on from the highest point in the rows of a mask."""
        self.delta = torch.where(per_row(where, self.delta), self.delta_max, self.delta)
        self.grad = torch.where(per_row(where, self.delta), self.grad_max, self.grad)
        self.f = torch.where(where, self.f_max, self.f)
