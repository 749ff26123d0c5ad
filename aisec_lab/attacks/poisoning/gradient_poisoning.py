"""Availability poisoning of a classifier on tables: rows that make it wrong everywhere."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.evasion.geometry.balls import Ball, Linf
from aisec_lab.attacks.poisoning.label_flips import LabelFlips, hessian, solve
from aisec_lab.attacks.poisoning.poisoned import Poisoned, check_class_labels, check_rate
from aisec_lab.data import Dataset

FIRST, LAST = 1.0, 1e-3  # steps of the line search, in units of eps


@dataclass(frozen=True)
class GradientPoisoning:
    """Rows with a false label, moved to where a softmax regression that learns them errs most on given rows.

    The gradient ascent of Biggio et al. (2012, arXiv:1206.6389, algorithm 1) and Munoz-Gonzalez et al. (2017,
    arXiv:1708.08689, eq. 3-5) for a learner whose optimum Newton's method finds: the loss on the targets has the
    gradient -g' H^-1 (d/dx grad l(x, y)) / n in a poisoned row x, with g and H as in `InfluenceLabelFlips`.

    Args:
        ball: what a row may be changed by; with eps 1 in `Linf` it may be any row of the box.
        rate: share of all training rows that are poisoned.
        penalty: weight of half the squared norm of the weights in the learner's mean loss.
        steps: of the climb, at most.

    Args of the call: `targets` rows and their true classes, whose loss shall rise; no surrogate, since the learner is
    the regression on the columns themselves.

    Returns, raises: as for `LabelFlips`; no targets, or of another shape.
    """

    ball: Ball = Linf(1.0)
    rate: float = 0.1
    penalty: float = 0.01
    steps: int = 50

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if not self.penalty > 0 or self.steps < 1:
            raise ValueError(f"penalty and steps must be positive: {self}")

    def __call__(
        self,
        dataset: Dataset,
        *,
        surrogate: nn.Module | None = None,
        targets: Dataset | None = None,
        generator: torch.Generator,
    ) -> Poisoned:
        if targets is None or targets.shape != dataset.shape:
            raise ValueError(
                f"GradientPoisoning needs targets whose loss shall rise, of shape {dataset.shape}, "
                f"got {'none' if targets is None else targets.shape}"
            )
        check_class_labels(dataset)
        flipped = LabelFlips(self.rate)(dataset, generator=generator)
        where = flipped.poison_mask
        x, clean = dataset.x.clone(), dataset.x[where]
        now, step = clean, FIRST
        best, grad = self._loss(flipped, now, targets)
        for _ in range(self.steps):
            if step < LAST:
                break
            move = step * self.ball.eps * self.ball.ascent_direction(grad)
            tried = clean + self.ball.project(clean, now - clean + move)
            loss, slope = self._loss(flipped, tried, targets)
            if loss > best:
                now, best, grad, step = tried, loss, slope, min(1.5 * step, FIRST)
            else:
                step /= 2
        x[where] = now
        return Poisoned(replace(flipped.dataset, x=x), where)

    def _loss(self, flipped: Poisoned, poison: Tensor, targets: Dataset) -> tuple[float, Tensor]:
        """The mean loss on the targets once the poison is learned, and its gradient in the poison's shape."""
        x, k = flipped.dataset.x.clone(), len(flipped.dataset.classes)
        x[flipped.poison_mask] = poison
        loss, grad = poison_gradient(
            _columns(x), F.one_hot(flipped.dataset.y, k).double(), _columns(targets.x), targets.y, self.penalty
        )
        return loss, grad[flipped.poison_mask, :-1].view_as(poison).to(poison)


def _columns(x: Tensor) -> Tensor:
    """Rows as the regression sees them (N, D + 1), the last column 1 for its bias, float64."""
    flat = x.flatten(1).double()
    return torch.cat([flat, torch.ones_like(flat[:, :1])], 1)


def poison_gradient(columns: Tensor, truth: Tensor, harmed: Tensor, y: Tensor, penalty: float) -> tuple[float, Tensor]:
    """The loss on harmed rows of the softmax regression of all rows, and its gradient in each of these.

    Args:
        columns: training rows (N, D), float64.
        truth: their class probabilities (N, K), float64.
        harmed: rows (M, D), float64.
        y: their classes (M,).
        penalty: of `solve`.

    Returns:
        The mean loss on the harmed rows, and the gradient (N, D).
    """
    weight = solve(columns, truth, penalty)  # (K, D)
    logits = harmed @ weight.T
    g = (logits.softmax(1) - F.one_hot(y, weight.shape[0]).to(harmed)).T @ harmed / len(y)  # (K, D)
    p = (columns @ weight.T).softmax(1)
    direction = torch.linalg.solve(hessian(p, columns, penalty), g.flatten()).view_as(weight)
    # grad l(x, t) in the weights is (p(x) - t) x'; along the direction it is sum_k (p_k - t_k) direction_k' x
    along = columns @ direction.T  # (N, K)
    through = p * (along - (p * along).sum(1, keepdim=True))  # how the probabilities themselves answer to x
    slope = (p - truth) @ direction + through @ weight  # (N, D)
    return F.cross_entropy(logits, y).item(), -slope / len(columns)
