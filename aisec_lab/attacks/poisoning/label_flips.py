"""Label flips: at random, from one class to another, and those that hurt a learner most."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.poisoning.poisoned import (
    Poisoned,
    check_class,
    check_class_labels,
    check_rate,
    choose_rows,
    count_of_rate,
)
from aisec_lab.data import Dataset
from aisec_lab.models import frozen


@dataclass(frozen=True)
class LabelFlips:
    """Labels changed at random (Biggio et al., 2011, "Support vector machines under adversarial label noise").

    Args:
        rate: share of all training rows that are poisoned.
        source: the only class whose labels are changed; None for all.
        target: what they are changed to; None for any other class, with equal chances.

    Args of the call, returns, raises: as for `Poisoning`; classes that the dataset does not have or that are equal, a
    rate that leaves nothing to choose.
    """

    rate: float = 0.1
    source: int | None = None
    target: int | None = None

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if self.source is not None and self.source == self.target:
            raise ValueError(f"source and target must differ, got {self.source} twice: that flips nothing")

    def __call__(
        self,
        dataset: Dataset,
        *,
        surrogate: nn.Module | None = None,
        targets: Dataset | None = None,
        generator: torch.Generator,
    ) -> Poisoned:
        check_class_labels(dataset)
        check_class("source", self.source, dataset)
        check_class("target", self.target, dataset)
        among = torch.ones_like(dataset.y, dtype=torch.bool) if self.source is None else dataset.y == self.source
        where = choose_rows(among if self.target is None else among & (dataset.y != self.target), self.rate, generator)
        y, k = dataset.y.clone(), len(dataset.classes)
        shift = torch.randint(1, k, y.shape, generator=generator)
        y[where] = (y + shift)[where] % k if self.target is None else self.target
        return Poisoned(replace(dataset, y=y), where, target=self.target)


@dataclass(frozen=True)
class InfluenceLabelFlips:
    """The label changes that raise the loss on given rows most, by their influence on the last layer.

    The learner is the surrogate's last layer on its features, a convex problem with an L2 penalty. To first order,
    calling row i class k changes the loss on the targets by -g' H^-1 (grad l(x_i, k) - grad l(x_i, y_i)) / n, where g
    is their mean gradient and H the Hessian of the training loss (Koh & Liang, 2017, arXiv:1703.04730, eq. 2 and
    section 5.4). The flips that raise it most are chosen, and none that lowers it; Xiao et al. (2012, ECAI) do
    so for an SVM.

    Args:
        rate: share of all training rows that are poisoned.
        penalty: weight of half the squared norm of the last layer in the learner's mean loss.

    Args of the call: `surrogate` an `nn.Sequential` that ends in `nn.Linear`, trained on `dataset`; `targets` rows and
    their true classes, whose loss shall rise; nothing is drawn from `generator`.

    Returns, raises: as for `Poisoning`.
    """

    rate: float = 0.1
    penalty: float = 0.01

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if not self.penalty > 0:
            raise ValueError(f"penalty must be positive, so that the learner has one solution, got {self.penalty}")

    def __call__(
        self,
        dataset: Dataset,
        *,
        surrogate: nn.Module | None = None,
        targets: Dataset | None = None,
        generator: torch.Generator,
    ) -> Poisoned:
        if not isinstance(surrogate, nn.Sequential) or not isinstance(surrogate[-1], nn.Linear) or targets is None:
            raise ValueError(
                "InfluenceLabelFlips needs a surrogate that ends in nn.Linear, and targets whose loss shall rise: "
                f"got {type(surrogate).__name__} and {'no targets' if targets is None else targets.name}"
            )
        check_class_labels(dataset)
        features, harmed = (_features(surrogate, rows) for rows in (dataset, targets))
        k = len(dataset.classes)
        weight = solve(features, F.one_hot(dataset.y, k).to(features), self.penalty)
        rises = flip_influence(weight, features, dataset.y, harmed, targets.y, self.penalty)  # (N, K)
        worst, label = rises.scatter(1, dataset.y[:, None], -torch.inf).max(1)
        rows = worst.topk(count_of_rate(self.rate, len(dataset), allowed=int((worst > 0).sum()))).indices
        y, where = dataset.y.clone(), torch.zeros(len(dataset), dtype=torch.bool)
        y[rows], where[rows] = label[rows], True
        return Poisoned(replace(dataset, y=y), where)


def _features(surrogate: nn.Sequential, rows: Dataset) -> Tensor:
    """What the last layer sees (N, D + 1), the last column 1 for its bias, float64."""
    with frozen(surrogate), torch.no_grad():
        seen = torch.cat([surrogate[:-1](x) for x in rows.x.split(500)]).flatten(1).double()
    return torch.cat([seen, torch.ones_like(seen[:, :1])], 1)


def solve(features: Tensor, truth: Tensor, penalty: float) -> Tensor:
    """The softmax regression (K, D) of rows (N, D) with class probabilities (N, K) under an L2 penalty, by Newton."""
    weight = torch.zeros(truth.shape[1], features.shape[1], dtype=features.dtype)

    def loss(weight: Tensor) -> Tensor:
        return F.cross_entropy(features @ weight.T, truth) + penalty / 2 * weight.square().sum()

    for _ in range(50):
        p = (features @ weight.T).softmax(1)
        grad = (p - truth).T @ features / len(truth) + penalty * weight
        if grad.abs().max() < 1e-10:
            break
        step = torch.linalg.solve(hessian(p, features, penalty), grad.flatten()).view_as(weight)
        size = 1.0
        while loss(weight - size * step) > loss(weight) and size > 1e-6:  # the full step overshoots far from the end
            size /= 2
        weight = weight - size * step
    return weight


def hessian(p: Tensor, features: Tensor, penalty: float) -> Tensor:
    """Of the mean cross-entropy at probabilities p (N, K), with the penalty: (K D, K D)."""
    n, k = p.shape
    d = features.shape[1]
    blocks = torch.empty(k, d, k, d, dtype=features.dtype)
    for a in range(k):
        for b in range(a, k):
            share = p[:, a] * (float(a == b) - p[:, b])
            blocks[a, :, b] = features.T @ (share[:, None] * features) / n
            blocks[b, :, a] = blocks[a, :, b].T
    return blocks.view(k * d, k * d) + penalty * torch.eye(k * d, dtype=features.dtype)


def flip_influence(
    weight: Tensor, features: Tensor, y: Tensor, harmed: Tensor, truth: Tensor, penalty: float
) -> Tensor:
    """By how much, to first order, relabelling row i as class k raises the mean loss on the harmed rows: (N, K)."""
    k, n = len(weight), len(y)
    p = (features @ weight.T).softmax(1)
    g = ((harmed @ weight.T).softmax(1) - F.one_hot(truth, k).to(harmed)).T @ harmed / len(truth)
    direction = torch.linalg.solve(hessian(p, features, penalty), g.flatten()).view_as(weight)
    along = features @ direction.T  # (N, K): what a unit of the gradient of logit k does
    return (along - along.gather(1, y[:, None])) / n  # grad l(x, k) - grad l(x, y) = (e_y - e_k) x'
