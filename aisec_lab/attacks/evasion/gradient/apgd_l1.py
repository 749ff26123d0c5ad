"""Auto-PGD in L1 (Croce & Hein, 2021, arXiv:2103.01208, algorithm 1): steps that change few coordinates."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.geometry.projections import TINY, normalise_gradient, per_row
from aisec_lab.attacks.evasion.gradient.apgd import APGDState
from aisec_lab.core.row_noise import RowNoise

FIRST_SPARSITY = 0.2  # share of the coordinates that the first steps change
CHECKPOINT_PERIOD = 0.04  # of the steps, between two checkpoints
SPARSER = 0.95  # x_max became sparser if its support is below this share of that at the last checkpoint
SPARSITY_FACTOR = 1.5  # the support of x_max, divided by the number of coordinates that the next steps change
ETA_DECAY, ETA_RANGE = 1.5, 10  # eta is divided by the first, and is at least eta_max divided by the second


@dataclass
class L1APGDState(APGDState):
    """The variables of Auto-PGD in L1; the first eta is eps.

    A step changes the `sparsity` coordinates of largest gradient that the box does not block, each in proportion to it;
    blocked ones stay at their face. So the search rests only at stationary points. The paper also counts blocked
    coordinates, and changes all by the same amount, which can stop at other points.
    """

    sparsity: Tensor  # number of coordinates that a step changes, the k of the paper
    support: Tensor  # number of coordinates that x_max changed at the last checkpoint
    eta_max: Tensor

    @staticmethod
    def random_start(x: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """x^(0) - x, shape of `x`: normal noise, projected, so that few coordinates change."""
        return ball.project(x, RowNoise(x, generator).normal(x.shape[1:], 0))

    @staticmethod
    def checkpoints(n_iter: int) -> list[int]:
        period = max(int(CHECKPOINT_PERIOD * n_iter), 1)
        return list(range(period, n_iter + 1, period))

    @classmethod
    def begin(cls, rows: Tensor, delta: Tensor, grad: Tensor, f: Tensor, eps: float) -> Self:
        size, zero = delta.shape[1:].numel(), torch.zeros_like(f)
        eta, support = zero + eps, torch.full_like(rows, size)
        sparsity = _at_least_one(FIRST_SPARSITY * support)
        return cls(rows, delta, delta, grad, f, delta, grad, f, eta, zero, f, zero.bool(), sparsity, support, eta)

    def step(self, ball: Ball, x: Tensor, first: bool) -> Tensor:
        point, magnitude = x + self.delta, normalise_gradient(self.grad).abs().flatten(1)
        blocked = (((point <= 0) & (self.grad < 0)) | ((point >= 1) & (self.grad > 0))).flatten(1)
        free = magnitude.masked_fill(blocked, 0.0)
        threshold = free.sort(dim=1, descending=True).values.gather(1, self.sparsity[:, None] - 1)
        chosen = magnitude >= threshold
        share = (magnitude * chosen / (free * chosen).sum(1, keepdim=True).clamp(min=TINY)).clamp(max=1)
        return ball.project(x, self.delta + per_row(self.eta, x) * self.grad.sign() * share.view_as(x))

    def update_step_size(self, steps: int) -> None:
        """At a checkpoint: where x_max became sparser, go on from it with eta_max; elsewhere divide eta."""
        support = (self.delta_max != 0).flatten(1).sum(1)
        sparser = support < SPARSER * self.support
        self.eta = torch.where(sparser, self.eta_max, torch.maximum(self.eta / ETA_DECAY, self.eta_max / ETA_RANGE))
        self.sparsity, self.support = _at_least_one(support / SPARSITY_FACTOR), support
        self.restart_from_best(sparser)


def _at_least_one(number: Tensor) -> Tensor:
    """Rounded down, and at least 1."""
    return number.floor().long().clamp(min=1)
