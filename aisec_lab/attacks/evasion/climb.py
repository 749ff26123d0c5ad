"""One run of Auto-PGD, algorithm 1 of Croce & Hein (2020, arXiv:2003.01690)."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.balls import Ball
from aisec_lab.attacks.evasion.projections import per_row, unstopped
from aisec_lab.attacks.evasion.search import Lowest, ascent

ALPHA = 0.75  # weight of the new step; the rest is momentum
RHO = 0.75  # share of steps that must raise the loss between two checkpoints


def checkpoints(steps: int) -> list[int]:
    """The steps 0 = w_0 < w_1 < ... <= `steps` at which the step size is looked at."""
    percent = [0, 22]  # the paper's p_j, in whole numbers
    while percent[-1] <= 100:
        percent.append(percent[-1] + max(percent[-1] - percent[-2] - 3, 6))
    return sorted({-(-p * steps // 100) for p in percent[:-1]})


@dataclass
class Climb:
    """Rows on their way up, in the symbols of algorithm 1; all fields share the first axis."""

    rows: Tensor  # positions in the whole batch
    delta: Tensor  # x^(k) - x
    before: Tensor  # x^(k-1) - x
    grad: Tensor  # of f at x^(k)
    f: Tensor  # loss at x^(k)
    delta_max: Tensor  # x_max - x
    grad_max: Tensor
    f_max: Tensor
    eta: Tensor  # step size
    raised: Tensor  # steps since the last checkpoint that raised f
    f_max_checked: Tensor  # f_max at the last checkpoint
    halved: Tensor  # whether eta was halved there

    @classmethod
    def begin(cls, rows: Tensor, delta: Tensor, grad: Tensor, f: Tensor, eta: float) -> "Climb":
        """Rows at their starts delta."""
        zero = torch.zeros_like(f)
        return cls(rows, delta, delta, grad, f, delta, grad, f, zero + eta, zero, f, zero.bool())

    def keep(self, mask: Tensor) -> None:
        """Let go of the rows outside `mask`."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])

    def move(self, delta: Tensor, grad: Tensor, f: Tensor) -> None:
        """Go on to delta, and remember it where it is the highest so far."""
        self.raised = self.raised + (f > self.f)
        self.before, self.delta, self.grad, self.f = self.delta, delta, grad, f
        higher = f > self.f_max
        self.delta_max = torch.where(per_row(higher, delta), delta, self.delta_max)
        self.grad_max = torch.where(per_row(higher, delta), grad, self.grad_max)
        self.f_max = torch.where(higher, f, self.f_max)

    def check(self, steps: int) -> None:
        """At a checkpoint, `steps` after the last: halve eta where f hardly rose, and go on from the highest point."""
        stuck = (self.raised < RHO * steps) | (~self.halved & (self.f_max == self.f_max_checked))
        self.eta = torch.where(stuck, self.eta / 2, self.eta)
        self.delta = torch.where(per_row(stuck, self.delta), self.delta_max, self.delta)
        self.grad = torch.where(per_row(stuck, self.delta), self.grad_max, self.grad)
        self.f = torch.where(stuck, self.f_max, self.f)
        self.halved, self.f_max_checked, self.raised = stuck, self.f_max, torch.zeros_like(self.raised)


def climb(
    model: nn.Module,
    found: Lowest,
    loss: Callable[..., Tensor],
    *labels: Tensor,
    ball: Ball,
    steps: int,
    generator: torch.Generator,
) -> None:
    """One run of Auto-PGD (algorithm 1) over the rows that are not yet won.

    Args:
        model: classifier, frozen.
        found: the best points so far; brought up to date.
        loss: of logits (n, K) and their rows' labels, each (n,); ascended.
        labels: of all rows (N,).
        ball: the threat.
        steps: the paper's N_iter.
        generator: source of the random start, of another one for each of several searches about a row.
    """
    x, rows = found.x, found.unsolved
    if not len(rows):
        return

    def ascent_at(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return ascent(model, z, lambda logits: loss(logits, *(label[rows] for label in labels)))

    delta = torch.cat([ball.sample(part, generator) for part in x[rows].chunk(found.copies)])
    logits, f, grad = ascent_at(x[rows] + delta, rows)
    c = Climb.begin(rows, delta, grad, f, eta=2 * ball.eps)
    found.see(rows, x[rows] + delta, logits)
    c.keep(found.open[rows])
    w = checkpoints(steps)
    for k in range(1, steps + 1):
        if not len(c.rows):
            return
        rows, origin = c.rows, x[c.rows]
        step = per_row(c.eta, origin) * ball.steepest(unstopped(origin, c.delta, c.grad))
        z = ball.project(origin, c.delta + step)
        if k > 1:
            z = ball.project(origin, c.delta + ALPHA * (z - c.delta) + (1 - ALPHA) * (c.delta - c.before))
        logits, f, grad = ascent_at(origin + z, rows)
        c.move(z, grad, f)
        if k in w:
            c.check(k - w[w.index(k) - 1])
        found.see(rows, origin + z, logits)
        c.keep(found.open[rows])
