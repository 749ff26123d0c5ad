"""What every gradient search for the smallest perturbation keeps, and what it gives back."""

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

STRETCH = (1e-6, 1e-5, 1e-4, 1e-3)  # of a perturbation whose point did not win when asked about again
FINAL_STEPS = 3  # of drawing points near, as in FAB
CLEARANCE = 1e-4  # of the clean margin, left when a point is drawn near: more than logits differ between batches


class MinimumNormAttack(Protocol):
    """An attack that looks for the smallest perturbation: a frozen dataclass of settings that is called."""

    @property
    def ball(self) -> Ball:
        """The norm, and a radius within which a row needs no further search."""
        ...

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        """The nearest adversarial inputs of rows `x` with classes `y`; its only randomness is `generator`'s."""
        ...


class MinimumNormTracker(BestSoFar):
    """The nearest point of each row that has won so far, beginning with the rows that are won as they are.

    Args:
        model, x, y, goal: as for `BestSoFar`.
        ball: the norm, and the radius within which a row leaves the search.

    Attributes: as for `BestSoFar`; the score is the distance.
        margin: of the rows themselves (N,).
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal, ball: Ball) -> None:
        super().__init__(model, x, y, goal)
        self.ball, self.margin = ball, goal.margin(self.logits, y)
        self.score = torch.where(self.margin < 0, 0.0, torch.inf).to(x.dtype)

    @property
    def distance(self) -> Tensor:
        """Of the nearest point (N,), `inf` where none has won."""
        return self.score

    @property
    def is_adversarial(self) -> Tensor:
        """A mask (N,): rows for which something was found inside the ball."""
        return self.score <= self.ball.eps

    def update(self, rows: Tensor, z: Tensor, logits: Tensor) -> Tensor:
        """Take note of points z for the rows at positions `rows`, and of the model's answers to them.

        Returns:
            A mask over `rows`: which points have won.
        """
        won = self.goal.margin(logits.detach(), self.y[rows]) < 0
        self.retain(rows, z, torch.where(won, self.ball.norm(z - self.x[rows]), torch.inf))
        return won

    def regula_falsi(self, model: nn.Module, times: int) -> None:
        """Draw the points found outside the ball towards their rows, by the rule of false position on the margin."""
        rows = ((self.distance > self.ball.eps) & self.distance.isfinite()).nonzero().squeeze(1)
        x, delta = self.x[rows], self.x_adv[rows] - self.x[rows]
        near, far = torch.zeros_like(self.distance[rows]), torch.ones_like(self.distance[rows])  # shares of the way
        with torch.no_grad():
            left, right = self.margin[rows], self.goal.margin(model(x + delta), self.y[rows])
            clear = CLEARANCE * left
            for _ in range(times):
                share = near + (far - near) * ((left + clear) / (left - right).clamp(min=TINY)).clamp(0, 1)
                z = x + per_row(share, x) * delta
                logits = model(z)
                won, margin = self.update(rows, z, logits), self.goal.margin(logits, self.y[rows])
                near, left = torch.where(won, near, share), torch.where(won, left, margin)
                far, right = torch.where(won, share, far), torch.where(won, margin, right)

    def result(self, model: nn.Module) -> MinimumNormResult:
        """What was found, each point asked about once more, all in one batch and as they are returned.

        Float32 logits depend a little on the batch: a point that does not win here is moved farther from its row by
        a hair, and given up as not found where that does not help.
        """
        with torch.no_grad():
            for stretch in (*STRETCH, None):
                won = self.goal.margin(model(self.x_adv), self.y) < 0
                lost = self.distance.isfinite() & ~won
                if not lost.any():
                    break
                x = self.x[lost]
                if stretch is None:
                    self.x_adv[lost], self.distance[lost] = x, torch.inf
                else:
                    delta = clip_to_box(x, (1 + stretch) * (self.x_adv[lost] - x))
                    self.x_adv[lost], self.distance[lost] = x + delta, self.ball.norm(x + delta - x)
        return MinimumNormResult(self.x_adv, self.distance)


def binary_search_c(distance: Tensor, first_c: float, searches: int, minimise: Callable[[Tensor], Tensor]) -> None:
    """The binary search for c, the weight of the margin beside the size (Carlini & Wagner, 2017, section V-B).

    Args:
        distance: one number for each row (N,), in whose precision it searches.
        first_c: the first weight of every row.
        searches: how many are tried.
        minimise: looks for points at weights (N,), and says for which rows one has won (N,).
    """
    c, low, high = (torch.full_like(distance, value) for value in (first_c, 0.0, torch.inf))
    for _ in range(searches):
        won = minimise(c)
        low, high = torch.where(won, low, c), torch.where(won, c, high)
        c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)


def top_wrong_classes(logits: Tensor, y: Tensor, number: int) -> Tensor:
    """The wrong classes of highest logit (N, K), at most `number`, in falling order: shape (N, C)."""
    return logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1][:, :number]


def cosine_schedule(first: float, last: float, share: float) -> float:
    """From `first` to `last` along a cosine, as `share` goes from 0 to 1."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
