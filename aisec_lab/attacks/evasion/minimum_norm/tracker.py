"""What gradient-based minimum-norm attacks share: the nearest adversarial points so far, and helpers."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.geometry.projections import TINY, clip_to_box, per_row
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.search.best import BestSoFar
from aisec_lab.attacks.evasion.search.goals import Goal

STRETCH = (1e-6, 1e-5, 1e-4, 1e-3)  # by which perturbations are lengthened whose points are not confirmed
FINAL_STEPS = 3  # false-position steps at the end, as in FAB
CLEARANCE = 1e-4  # margin to be kept, as a share of the clean one: more than logits differ between batches


class MinimumNormAttack(Protocol):
    """A minimum-norm attack: a frozen dataclass of settings that is called. Contract: docs/evasion-attacks.md."""

    @property
    def ball(self) -> Ball:
        """The norm; rows adversarial inside its radius leave the search."""
        ...

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        """The nearest adversarial inputs of rows `x` (N, *input) with classes `y` (N,)."""
        ...


class MinimumNormTracker(BestSoFar):
    """The nearest adversarial point of each row so far; rows misclassified without an attack have distance 0.

    Args:
        model: classifier, frozen; called once on all rows.
        x: clean inputs (N, *input).
        y: classes (N,), true or target ones, as the goal needs them.
        goal: what makes a row adversarial.
        ball: the norm, and the radius within which a row leaves the search.

    Attributes:
        x_adv: the points, shape of `x`.
        score: their distances (N,), `inf` for rows without one.
        logits: the model's output (N, K) on the clean rows.
        margin: margins (N,) of the clean rows.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal, ball: Ball) -> None:
        super().__init__(model, x, y, goal)
        self.ball, self.margin = ball, goal.margin(self.logits, y)
        self.score = torch.where(self.margin < 0, 0.0, torch.inf).to(x.dtype)

    @property
    def distance(self) -> Tensor:
        """Distances (N,) of the nearest points, `inf` for rows without one."""
        return self.score

    @property
    def is_adversarial(self) -> Tensor:
        """The mask (N,) of rows with an adversarial point inside the ball."""
        return self.score <= self.ball.eps

    def update(self, rows: Tensor, z: Tensor, logits: Tensor) -> Tensor:
        """Record points where they are adversarial and nearer.

        Args:
            rows: positions (n,) of the rows.
            z: a point for each (n, *input).
            logits: the model's output (n, K) on the points.

        Returns:
            The mask (n,) of adversarial points.
        """
        is_adv = self.goal.margin(logits.detach(), self.y[rows]) < 0
        self.retain(rows, z, torch.where(is_adv, self.ball.norm(z - self.x[rows]), torch.inf))
        return is_adv

    def regula_falsi(self, model: nn.Module, times: int) -> None:
        """Move points outside the ball towards their rows, by `times` false-position steps on the margin."""
        rows = ((self.distance > self.ball.eps) & self.distance.isfinite()).nonzero().squeeze(1)
        x, delta = self.x[rows], self.x_adv[rows] - self.x[rows]
        near, far = torch.zeros_like(self.distance[rows]), torch.ones_like(self.distance[rows])  # shares of delta
        with torch.no_grad():
            left, right = self.margin[rows], self.goal.margin(model(x + delta), self.y[rows])
            clearance = CLEARANCE * left
            for _ in range(times):
                share = near + (far - near) * ((left + clearance) / (left - right).clamp(min=TINY)).clamp(0, 1)
                z = x + per_row(share, x) * delta
                logits = model(z)
                is_adv, margin = self.update(rows, z, logits), self.goal.margin(logits, self.y[rows])
                near, left = torch.where(is_adv, near, share), torch.where(is_adv, left, margin)
                far, right = torch.where(is_adv, share, far), torch.where(is_adv, margin, right)

    def result(self, model: nn.Module) -> MinimumNormResult:
        """The result, each point confirmed by one more pass over all points as they are returned.

        Float32 logits depend slightly on the batch. A point that is not adversarial here is moved away from x by up to
        a thousandth of its distance, and dropped if that does not help.

        Args:
            model: classifier, frozen.
        """
        with torch.no_grad():
            for stretch in (*STRETCH, None):
                is_adv = self.goal.margin(model(self.x_adv), self.y) < 0
                not_adv = self.distance.isfinite() & ~is_adv
                if not not_adv.any():
                    break
                x = self.x[not_adv]
                if stretch is None:
                    self.x_adv[not_adv], self.distance[not_adv] = x, torch.inf
                else:
                    delta = clip_to_box(x, (1 + stretch) * (self.x_adv[not_adv] - x))
                    self.x_adv[not_adv], self.distance[not_adv] = x + delta, self.ball.norm(x + delta - x)
        return MinimumNormResult(self.x_adv, self.distance)


def binary_search_c(distance: Tensor, first_c: float, searches: int, minimise: Callable[[Tensor], Tensor]) -> None:
    """Binary search for c, the weight of the margin against the distance (Carlini & Wagner, 2017, section V-B).

    Args:
        distance: any tensor (N,) whose dtype and device the search shall use.
        first_c: first value of every row.
        searches: number of values that are tried.
        minimise: minimises the objective with weights (N,), and returns the mask (N,) of rows with an adversarial
            point.
    """
    c, low, high = (torch.full_like(distance, value) for value in (first_c, 0.0, torch.inf))
    for _ in range(searches):
        is_adv = minimise(c)
        low, high = torch.where(is_adv, low, c), torch.where(is_adv, c, high)
        c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)


def top_wrong_classes(logits: Tensor, y: Tensor, number: int) -> Tensor:
    """The wrong classes of highest logit, in descending order.

    Args:
        logits: (N, K).
        y: true classes (N,).
        number: how many classes; K - 1 at most are returned.

    Returns:
        Classes (N, min(number, K - 1)).
    """
    return logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1][:, :number]


def cosine_schedule(first: float, last: float, share: float) -> float:
    """The value between `first` and `last` on a half cosine, at a share in [0, 1] of the way."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
