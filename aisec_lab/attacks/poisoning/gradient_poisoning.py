"""Availability poisoning of a classifier: poisoned rows that raise its error on other rows."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.evasion.geometry.balls import Ball, Linf
from aisec_lab.attacks.poisoning.ascent import Ascent, gradient_ascent
from aisec_lab.attacks.poisoning.label_flips import LabelFlips
from aisec_lab.attacks.poisoning.poisoned import Poisoned, Poisoning, check_rate, check_two_classes
from aisec_lab.attacks.poisoning.softmax import fit_softmax_regression, hessian, with_bias
from aisec_lab.data import Dataset

SMALLEST = 1e-3  # step of the line search, in units of eps


@dataclass(frozen=True)
class GradientPoisoning(Poisoning):
    """Rows with a wrong label, moved along the gradient of the loss of a softmax regression that is trained on them.

    The gradient ascent of Biggio et al. (2012, arXiv:1206.6389, algorithm 1) and Munoz-Gonzalez et al. (2017,
    arXiv:1708.08689, eq. 3-5), for a learner whose optimum Newton's method finds. The loss on the targets has the
    gradient -g' H^-1 (d/dx grad l(x, y)) / n in a poisoned row x, with g and H as in `InfluenceLabelFlips`.

    Call contract: docs/poisoning-attacks.md. `targets` are needed: rows and their true classes, on which the loss is to
    rise. `surrogate` is unused, since the learner is the regression on the inputs themselves. Rows and labels are drawn
    as by `LabelFlips`.

    Args:
        ball: set of the allowed perturbations of a row; `Linf(1.0)` allows every row in [0, 1].
        rate: share of all training rows that are poisoned, in (0, 1].
        penalty: weight of half the squared norm of the weights in the learner's mean loss, positive.
        steps: of the ascent at most, at least 1.
    """

    ball: Ball = Linf(1.0)
    rate: float = 0.1
    penalty: float = 0.01
    steps: int = 50

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if not self.penalty > 0 or self.steps < 1:
            raise ValueError(f"penalty and steps must be positive: {self}")

    def _poison(
        self, dataset: Dataset, surrogate: nn.Module | None, targets: Dataset | None, generator: torch.Generator
    ) -> Poisoned:
        harmed = self._require_targets(targets, dataset)
        check_two_classes(dataset)
        flipped = LabelFlips(self.rate)(dataset, generator=generator)
        mask = flipped.poison_mask
        x, clean = dataset.x.clone(), dataset.x[mask]

        def loss(poison: Tensor) -> tuple[float, Tensor]:
            return self._loss(flipped, poison, harmed)

        def move(at: Ascent, step: float) -> Tensor:
            ahead = step * self.ball.eps * self.ball.ascent_direction(at.gradient)
            return clean + self.ball.project(clean, at.point - clean + ahead)

        begin = Ascent(clean, *loss(clean))
        x[mask] = gradient_ascent(begin, loss, move, steps=self.steps, growth=1.5, smallest=SMALLEST).point
        return Poisoned(replace(flipped.dataset, x=x), mask)

    def _loss(self, flipped: Poisoned, poison: Tensor, targets: Dataset) -> tuple[float, Tensor]:
        """The mean loss on the targets after training on the poison, and its gradient in the poison's shape."""
        x, k = flipped.dataset.x.clone(), len(flipped.dataset.classes)
        x[flipped.poison_mask] = poison
        loss, grad = poison_gradient(
            with_bias(x), F.one_hot(flipped.dataset.y, k).double(), with_bias(targets.x), targets.y, self.penalty
        )
        return loss, grad[flipped.poison_mask, :-1].view_as(poison).to(poison)


def poison_gradient(columns: Tensor, truth: Tensor, harmed: Tensor, y: Tensor, penalty: float) -> tuple[float, Tensor]:
    """The loss of a softmax regression on other rows, and its gradient in each row that the regression is trained on.

    Args:
        columns: training rows (N, D), float64.
        truth: their class probabilities (N, K), float64.
        harmed: the other rows (M, D), float64.
        y: their classes (M,), int64.
        penalty: as in `fit_softmax_regression`.

    Returns:
        The mean cross-entropy on the harmed rows, and the gradient (N, D).
    """
    weight = fit_softmax_regression(columns, truth, penalty)  # (K, D)
    logits = harmed @ weight.T
    g = (logits.softmax(1) - F.one_hot(y, weight.shape[0]).to(harmed)).T @ harmed / len(y)  # (K, D)
    p = (columns @ weight.T).softmax(1)
    direction = torch.linalg.solve(hessian(p, columns, penalty), g.flatten()).view_as(weight)
    # grad l(x, t) in the weights is (p(x) - t) x'; along the direction it is sum_k (p_k - t_k) direction_k' x
    along = columns @ direction.T  # (N, K)
    through = p * (along - (p * along).sum(1, keepdim=True))  # how the probabilities themselves depend on x
    slope = (p - truth) @ direction + through @ weight  # (N, D)
    return F.cross_entropy(logits, y).item(), -slope / len(columns)
