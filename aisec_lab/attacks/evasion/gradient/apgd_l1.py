"""How Auto-PGD steps in L1: along few coordinates, hardly more than its best point needs."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.geometry.projections import TINY, normalise_gradient, per_row
from aisec_lab.attacks.evasion.gradient.apgd_state import APGDState
from aisec_lab.core.row_noise import RowNoise

FIRST = 0.2  # share of the coordinates that the first steps go along
PERIOD = 0.04  # of the steps, between two checkpoints
SPARSER = 0.95  # of the coordinates changed at the last checkpoint: at most so many, and eta begins anew
FEWER = 1.5  # the coordinates that the best point changes, over those that the next steps go along
SHRINK, LEAST = 1.5, 10  # else eta falls by the one factor, by the other in all


@dataclass
class L1APGDState(APGDState):
    """Rows on their way up in L1 (Croce & Hein, 2021, arXiv:2103.01208, algorithm 1); the first eta is eps.

    A step goes along the `number` coordinates of largest gradient that the box lets move; the paper counts those it
    stops too. It is as long along each as its gradient is steep, and those that the box stops are held there: so
    that only a stationary point is one where the search stays. The paper's are all alike, and stay at others.
    """

    number: Tensor  # of coordinates that a step goes along
    support: Tensor  # coordinates that the best point changed at the last checkpoint
    eta_max: Tensor

    @staticmethod
    def random_start(x: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """Normal noise, projected: it changes few coordinates."""
        return ball.project(x, RowNoise(x, generator).normal(x.shape[1:], 0))

    @staticmethod
    def checkpoints(steps: int) -> list[int]:
        period = max(int(PERIOD * steps), 1)
        return list(range(period, steps + 1, period))

    @classmethod
    def begin(cls, rows: Tensor, delta: Tensor, grad: Tensor, f: Tensor, eps: float) -> Self:
        size, zero = delta.shape[1:].numel(), torch.zeros_like(f)
        eta, support = zero + eps, torch.full_like(rows, size)
        number = _whole(FIRST * support)
        return cls(rows, delta, delta, grad, f, delta, grad, f, eta, zero, f, zero.bool(), number, support, eta)

    def step(self, ball: Ball, x: Tensor, first: bool) -> Tensor:
        z, steepness = x + self.delta, normalise_gradient(self.grad).abs().flatten(1)
        stopped = (((z <= 0) & (self.grad < 0)) | ((z >= 1) & (self.grad > 0))).flatten(1)
        free = steepness.masked_fill(stopped, 0.0)
        least = free.sort(dim=1, descending=True).values.gather(1, self.number[:, None] - 1)
        steep = steepness >= least
        share = (steepness * steep / (free * steep).sum(1, keepdim=True).clamp(min=TINY)).clamp(max=1)
        return ball.project(x, self.delta + per_row(self.eta, x) * self.grad.sign() * share.view_as(x))

    def update_step_size(self, steps: int) -> None:
        """At a checkpoint: where the best point has become sparser, go on from it with the first eta, else less."""
        support = (self.delta_max != 0).flatten(1).sum(1)
        sparser = support < SPARSER * self.support
        self.eta = torch.where(sparser, self.eta_max, torch.maximum(self.eta / SHRINK, self.eta_max / LEAST))
        self.number, self.support = _whole(support / FEWER), support
        self.restart_from_best(sparser)


def _whole(number: Tensor) -> Tensor:
    """Rounded down, and at least 1."""
    return number.floor().long().clamp(min=1)
