"""Gradient matching: rows that pull a learner towards one wrong answer, and no label that betrays them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.attacks.evasion.geometry.balls import Ball, Linf
from aisec_lab.attacks.poisoning.poisoned import Poisoned, check_class, check_rate, choose_rows
from aisec_lab.data import Dataset
from aisec_lab.models import frozen

DECAY = 0.1  # of the step, after 3/8, 5/8 and 7/8 of them, as the authors have it


@dataclass(frozen=True)
class GradientMatching:
    """Rows of the wanted class, changed so that learning them is learning the targets as that class.

    Geiping et al. (2021, arXiv:2009.02276, algorithm 1): the changes minimise the cosine distance between the gradient
    that teaches the surrogate the wanted answer on the targets and the mean training gradient of the poison (eq. 3),
    over all parameters, by Adam on the signs of the gradient. Labels stay true. Without the paper's augmentation.

    Args:
        ball: what a row may be changed by.
        rate: share of all training rows that are poisoned.
        steps: of Adam, a restart.
        step_size: the first ones, in units of eps.
        restarts: from random changes; the one that ends nearest to the gradient is kept.

    Args of the call: `surrogate` a classifier trained on data like these, in evaluation mode; `targets` the rows that
    shall be mistaken, all with the one class that is wanted of them.

    Returns, raises: as for `Poisoning`; targets of another shape or of several classes, fewer rows of the wanted class
    than the rate asks for, a surrogate in training mode.
    """

    ball: Ball = Linf(16 / 255)
    rate: float = 0.01
    steps: int = 250
    step_size: float = 0.1
    restarts: int = 8

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if self.steps < 1 or self.restarts < 1 or not self.step_size > 0:
            raise ValueError(f"steps, restarts and step_size must be positive: {self}")

    def __call__(
        self,
        dataset: Dataset,
        *,
        surrogate: nn.Module | None = None,
        targets: Dataset | None = None,
        generator: torch.Generator,
    ) -> Poisoned:
        if surrogate is None or targets is None:
            raise ValueError(
                "GradientMatching needs a surrogate, trained on data like these, and targets with the class wanted of "
                f"them: got {type(surrogate).__name__} and {'no targets' if targets is None else targets.name}"
            )
        class_wanted = _one_class(targets, dataset)
        check(surrogate, targets.x, targets.y)
        where = choose_rows(dataset.y == class_wanted, self.rate, generator)
        x, y = dataset.x[where], dataset.y[where]
        with frozen(surrogate):
            check_answer(surrogate(targets.x), targets.y)
            aim = [part.detach() for part in training_gradient(surrogate, targets.x, targets.y)]
            tries = [self._descend(surrogate, x, y, aim, self.ball.sample(x, generator)) for _ in range(self.restarts)]
        delta, _ = min(tries, key=lambda tried: tried[1])
        poison = dataset.x.clone()
        poison[where] = x + delta
        return Poisoned(replace(dataset, x=poison), where, target=class_wanted)

    def _descend(
        self, surrogate: nn.Module, x: Tensor, y: Tensor, aim: list[Tensor], start: Tensor
    ) -> tuple[Tensor, float]:
        """The last change of the rows (P, *input), and its distance, from the first one."""
        delta = start.clone().requires_grad_()
        adam = torch.optim.Adam([delta], lr=self.step_size * self.ball.eps)
        milestones = [self.steps * part // 8 for part in (3, 5, 7)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(adam, milestones, DECAY)
        for _ in range(self.steps):
            distance = mismatch(aim, training_gradient(surrogate, x + delta, y))
            (grad,) = torch.autograd.grad(distance, delta)
            delta.grad = grad.sign()
            adam.step()
            schedule.step()
            with torch.no_grad():
                delta.copy_(self.ball.project(x, delta))
        return delta.detach(), mismatch(aim, training_gradient(surrogate, x + delta, y)).item()


def _one_class(targets: Dataset, dataset: Dataset) -> int:
    """The class that is wanted of all targets."""
    if targets.shape != dataset.shape:
        raise ValueError(f"targets must be rows as those of {dataset.name}, {dataset.shape}, got {targets.shape}")
    classes = targets.y.unique().tolist()
    if len(classes) != 1:
        raise ValueError(f"all targets must be wanted as one class, got {classes}: attack each class on its own")
    check_class("the class wanted of the targets", classes[0], dataset)
    return int(classes[0])


def training_gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the mean cross-entropy on rows in all parameters, itself differentiable in the rows.

    Args:
        model: classifier; its own parameters stay without gradients.
        x: inputs (N, *input).
        y: classes (N,).
    """
    weights = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    loss = F.cross_entropy(functional_call(model, weights, (x,)), y)
    return torch.autograd.grad(loss, list(weights.values()), create_graph=True)


def mismatch(aim: Iterable[Tensor], gradient: Iterable[Tensor]) -> Tensor:
    """One minus the cosine of two gradients, over all their parts together (Geiping et al., 2021, eq. 3): a scalar."""
    pairs = list(zip(aim, gradient, strict=True))
    along = torch.stack([(a * g).sum() for a, g in pairs]).sum()
    lengths = [torch.stack([part.square().sum() for part in parts]).sum().sqrt() for parts in zip(*pairs, strict=True)]
    return 1 - along / (lengths[0] * lengths[1])
