"""Gradient matching: clean-label poison whose training gradient makes a learner misclassify chosen targets."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.attacks.evasion.geometry.balls import Ball, Linf
from aisec_lab.attacks.poisoning.poisoned import Poisoned, Poisoning, check_class, check_rate, choose_rows
from aisec_lab.attacks.training_gradients import cosine_distance, signed_adam, training_gradient
from aisec_lab.data import Dataset
from aisec_lab.models import frozen


@dataclass(frozen=True)
class GradientMatching(Poisoning):
    """Witches' Brew: perturb rows of one class so that training on them teaches that class for the targets.

    Geiping et al. (2021, arXiv:2009.02276, algorithm 1). The perturbations minimise the cosine distance between two
    gradients of the surrogate: the one that teaches the wanted class on the targets, and the mean training gradient of
    the poisoned rows (eq. 3). Adam on the signs of the gradient minimises it over all parameters. Labels stay true.
    The paper's data augmentation is left out.

    Call contract: docs/poisoning-attacks.md. `surrogate` and `targets` are needed; all targets have the one class that
    is wanted of them.

    Args:
        ball: set of the allowed perturbations of a row.
        rate: share of all training rows that are poisoned, in (0, 1].
        steps: of Adam in each restart, at least 1.
        step_size: of the first steps, in units of eps, positive.
        restarts: from random perturbations, at least 1; the one with the smallest distance is kept.

    Raises:
        ValueError: settings out of range; on a call also targets of several classes, and a surrogate in training mode.
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

    def _poison(
        self, dataset: Dataset, surrogate: nn.Module | None, targets: Dataset | None, generator: torch.Generator
    ) -> Poisoned:
        model, aims = self._require_surrogate(surrogate), self._require_targets(targets, dataset)
        wanted = _one_class(aims, dataset)
        check(model, aims.x, aims.y)
        mask = choose_rows(dataset.y == wanted, self.rate, generator)
        x, y = dataset.x[mask], dataset.y[mask]
        with frozen(model):
            check_answer(model(aims.x), aims.y)
            aim = [part.detach() for part in training_gradient(model, aims.x, aims.y)]
            tries = [self._descend(model, x, y, aim, self.ball.sample(x, generator)) for _ in range(self.restarts)]
        delta, _ = min(tries, key=lambda tried: tried[1])
        poison = dataset.x.clone()
        poison[mask] = x + delta
        return Poisoned(replace(dataset, x=poison), mask, target=wanted)

    def _descend(
        self, surrogate: nn.Module, x: Tensor, y: Tensor, aim: list[Tensor], start: Tensor
    ) -> tuple[Tensor, float]:
        """One restart: the last perturbation of the rows (P, *input), and its cosine distance."""

        def distance(delta: Tensor) -> Tensor:
            return cosine_distance(aim, training_gradient(surrogate, x + delta, y))

        delta = signed_adam(
            start,
            distance,
            lambda delta: self.ball.project(x, delta),
            steps=self.steps,
            step_size=self.step_size * self.ball.eps,
        )
        return delta, distance(delta).item()


def _one_class(targets: Dataset, dataset: Dataset) -> int:
    """The class that is wanted of all targets."""
    classes = targets.y.unique().tolist()
    if len(classes) != 1:
        raise ValueError(f"all targets must be wanted as one class, got {classes}: attack each class on its own")
    check_class("the class wanted of the targets", classes[0], dataset)
    return int(classes[0])
