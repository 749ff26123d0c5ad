"""Label flips: at random, from one class to another, and those that raise a learner's loss most."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.poisoning.poisoned import (
    Poisoned,
    Poisoning,
    check_class,
    check_rate,
    check_two_classes,
    choose_rows,
    rows_at_rate,
)
from aisec_lab.attacks.poisoning.softmax import fit_softmax_regression, hessian, with_bias
from aisec_lab.data import Dataset
from aisec_lab.models import frozen


@dataclass(frozen=True)
class LabelFlips(Poisoning):
    """Labels changed at random (Biggio et al., 2011, "Support vector machines under adversarial label noise").

    Call contract: docs/poisoning-attacks.md. Neither `surrogate` nor `targets` is used.

    Args:
        rate: share of all training rows that are poisoned, in (0, 1].
        source: the only class whose labels are changed, 0..K-1; None for all.
        target: class that they are changed to, 0..K-1; None for any other class, each equally likely.

    Raises:
        ValueError: a rate out of range, or equal `source` and `target`; on a call also a dataset of one class.
    """

    rate: float = 0.1
    source: int | None = None
    target: int | None = None

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if self.source is not None and self.source == self.target:
            raise ValueError(f"source and target must differ, got {self.source} twice: that flips nothing")

    def _poison(
        self, dataset: Dataset, surrogate: nn.Module | None, targets: Dataset | None, generator: torch.Generator
    ) -> Poisoned:
        check_two_classes(dataset)
        check_class("source", self.source, dataset)
        check_class("target", self.target, dataset)
        allowed = torch.ones_like(dataset.y, dtype=torch.bool) if self.source is None else dataset.y == self.source
        if self.target is not None:
            allowed = allowed & (dataset.y != self.target)
        mask = choose_rows(allowed, self.rate, generator)
        y, k = dataset.y.clone(), len(dataset.classes)
        shift = torch.randint(1, k, y.shape, generator=generator)
        y[mask] = (y + shift)[mask] % k if self.target is None else self.target
        return Poisoned(replace(dataset, y=y), mask, target=self.target)


@dataclass(frozen=True)
class InfluenceLabelFlips(Poisoning):
    """The label flips that raise the loss on given rows most, by their influence on the last layer.

    The learner is the surrogate's last layer on its features, a convex problem with an L2 penalty. To first order,
    relabelling row i as class k changes the loss on the targets by -g' H^-1 (grad l(x_i, k) - grad l(x_i, y_i)) / n,
    where g is their mean gradient and H the Hessian of the training loss (Koh & Liang, 2017, arXiv:1703.04730, eq. 2
    and section 5.4). The flips that raise the loss most are chosen, and none that lowers it. Xiao et al. (2012, ECAI)
    do the same for a support vector machine.

    Call contract: docs/poisoning-attacks.md. `surrogate` and `targets` are needed: an `nn.Sequential` that ends in
    `nn.Linear` and was trained on `dataset`, and rows with their true classes. `generator` is not drawn from.

    Args:
        rate: share of all training rows that are poisoned, in (0, 1].
        penalty: weight of half the squared norm of the last layer in the learner's mean loss, positive.

    Raises:
        ValueError: settings out of range; on a call also a surrogate of another form, and a dataset of one class.
    """

    rate: float = 0.1
    penalty: float = 0.01

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if not self.penalty > 0:
            raise ValueError(f"penalty must be positive, so that the learner has one solution, got {self.penalty}")

    def _poison(
        self, dataset: Dataset, surrogate: nn.Module | None, targets: Dataset | None, generator: torch.Generator
    ) -> Poisoned:
        if not isinstance(surrogate, nn.Sequential) or not isinstance(surrogate[-1], nn.Linear):
            raise ValueError(
                f"InfluenceLabelFlips needs a surrogate that ends in nn.Linear, got {type(surrogate).__name__}"
            )
        others = self._require_targets(targets, dataset)
        check_two_classes(dataset)
        features, harmed = (_features(surrogate, rows) for rows in (dataset, others))
        k = len(dataset.classes)
        weight = fit_softmax_regression(features, F.one_hot(dataset.y, k).to(features), self.penalty)
        rises = flip_influence(weight, features, dataset.y, harmed, others.y, self.penalty)  # (N, K)
        most, label = rises.scatter(1, dataset.y[:, None], -torch.inf).max(1)
        rows = most.topk(rows_at_rate(self.rate, len(dataset), allowed=int((most > 0).sum()))).indices
        y, mask = dataset.y.clone(), torch.zeros(len(dataset), dtype=torch.bool)
        y[rows], mask[rows] = label[rows], True
        return Poisoned(replace(dataset, y=y), mask)


def _features(surrogate: nn.Sequential, rows: Dataset) -> Tensor:
    """Inputs of the last layer (N, D + 1), float64; the last column is 1, for the bias."""
    with frozen(surrogate), torch.no_grad():
        seen = torch.cat([surrogate[:-1](x) for x in rows.x.split(500)])
    return with_bias(seen)


def flip_influence(
    weight: Tensor, features: Tensor, y: Tensor, harmed: Tensor, truth: Tensor, penalty: float
) -> Tensor:
    """By how much relabelling one training row raises the mean loss on other rows, to first order.

    Args:
        weight: the softmax regression (K, D) of the training rows.
        features: training rows (N, D), float64.
        y: their classes (N,), int64.
        harmed, truth: the other rows (M, D), float64, and their classes (M,), int64.
        penalty: as in `fit_softmax_regression`.

    Returns:
        The rise (N, K) when row i is labelled as class k; 0 for its own class.
    """
    k, n = len(weight), len(y)
    p = (features @ weight.T).softmax(1)
    g = ((harmed @ weight.T).softmax(1) - F.one_hot(truth, k).to(harmed)).T @ harmed / len(truth)
    direction = torch.linalg.solve(hessian(p, features, penalty), g.flatten()).view_as(weight)
    along = features @ direction.T  # (N, K): effect of a unit of the gradient of logit k
    return (along - along.gather(1, y[:, None])) / n  # grad l(x, k) - grad l(x, y) = (e_y - e_k) x'
