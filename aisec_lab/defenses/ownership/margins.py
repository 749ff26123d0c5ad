"""Distances of rows from a model's decision boundary, in several directions and norms."""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import scored_model
from aisec_lab.attacks.evasion.geometry.balls import L1, L2, Ball, Linf
from aisec_lab.attacks.evasion.geometry.projections import clip_to_box
from aisec_lab.attacks.evasion.search.goals import logit_margin
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient
from aisec_lab.models import logits_of
from aisec_lab.models.checked import checked_model
from aisec_lab.models.layers import refuse_opaque

BALLS: tuple[Ball, ...] = (L1(1), L2(1), Linf(1))  # their radii are not used


class Margins(Protocol):
    """A way to measure distances from the decision boundary: a frozen dataclass of settings that is called."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Measure the distances of rows.

        Args:
            model: classifier, evaluated in evaluation mode.
            x: rows (N, *input) in [0, 1].
            y: their true classes (N,).
            generator: source of all randomness.

        Returns:
            Distances (N, F), on the CPU, at least 0; the same F for any model of the same classes.
        """
        ...


@dataclass(frozen=True)
class BlindWalk:
    """Distances at which random directions leave the class (Maini et al., 2021, arXiv:2104.10706, section 4.2.2).

    Only predicted classes are needed. Directions are Laplace, Gaussian and uniform noise, whose lengths are measured in
    L1, L2 and Linf.

    The distance of a misclassified row is 0. A row that never leaves its class gets the length of the whole
    walk, as if inputs were not clipped to [0, 1].

    Args:
        directions: number of directions of each kind of noise, at least 1.
        steps: number of points that are tried along a direction, at least 1.
        step: distance between two points, above 0, in units of the noise. The paper's 0.005 is for larger images.

    Raises:
        ValueError: a setting out of range.
    """

    directions: int = 10
    steps: int = 20
    step: float = 0.05

    def __post_init__(self) -> None:
        if min(self.directions, self.steps) < 1 or not self.step > 0:
            raise ValueError(f"directions, steps and step must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Measure the distances of rows.

        Args:
            model: classifier, evaluated in evaluation mode.
            x: rows (N, *input) in [0, 1].
            y: their true classes (N,).
            generator: source of the directions.

        Returns:
            Distances (N, 3 * directions), on the CPU, at least 0.
        """
        distances = []
        with checked_model(model):
            for ball in BALLS:
                for _ in range(self.directions):
                    uniform = (2 * torch.rand(x.shape, generator=generator) - 1).clamp(-1 + 1e-6, 1 - 1e-6).to(x)
                    noise = {"L1": -uniform.sign() * (1 - uniform.abs()).log(), "Linf": uniform}.get(
                        ball.name, torch.special.ndtri((uniform + 1) / 2)
                    )
                    distances.append(self._walked(model, x, y, noise, ball))
        return torch.stack(distances, 1)

    def _walked(self, model: nn.Module, x: Tensor, y: Tensor, noise: Tensor, ball: Ball) -> Tensor:
        """Distances (N,) at which rows leave their class along one direction each."""
        distance = ball.norm(self.steps * self.step * noise)  # not clipped: a walk stopped by the box is not short
        rows = torch.arange(len(x), device=x.device)
        for place in range(self.steps + 1):
            delta = clip_to_box(x[rows], place * self.step * noise[rows])
            leaves = (logits_of(model, x[rows] + delta).argmax(1) != y[rows].cpu()).to(rows.device)
            distance[rows[leaves]] = ball.norm(delta[leaves])
            rows = rows[~leaves]
            if not len(rows):
                break
        return distance.cpu()


@dataclass(frozen=True)
class MinGD:
    """Distances from every class by gradient descent (Maini et al., 2021, arXiv:2104.10706, section 4.2.1); white box.

    In each norm, a row moves along the steepest direction towards a class until the model predicts that class.

    Args:
        steps: largest number of steps, at least 1. For a class that it does not reach, a row gets
            the distance that it moved.
        step: length of a step in L1, L2 and Linf, above 0.

    Raises:
        ValueError: a setting out of range; on a call, an opaque model, which has no gradient, or one that answers with
            probabilities.
    """

    steps: int = 50
    step: tuple[float, float, float] = (0.5, 0.1, 0.02)

    def __post_init__(self) -> None:
        if self.steps < 1 or not min(self.step) > 0:
            raise ValueError(f"steps and step must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Measure the distances of rows.

        Args:
            model: classifier, evaluated in evaluation mode.
            x: rows (N, *input) in [0, 1].
            y: not used: a row moves towards every class.
            generator: not used: nothing is random.

        Returns:
            Distances (N, 3 * K), on the CPU, at least 0: for each norm, those from the K classes, the nearest first.
            The nearest is the predicted class, at distance 0.
        """
        refuse_opaque(model)
        with scored_model(model):
            classes = logits_of(model, x[:1]).shape[1]
            targets = [torch.full_like(y, label) for label in range(classes)]
            distances = [
                torch.stack([self._reached(model, x, target, ball, step) for target in targets]).sort(0).values
                for ball, step in zip(BALLS, self.step, strict=True)
            ]
        return torch.cat(distances).T

    def _reached(self, model: nn.Module, x: Tensor, target: Tensor, ball: Ball, step: float) -> Tensor:
        """Distances (N,) at which rows reach their target classes (N,) in one norm."""
        delta = torch.zeros_like(x)
        rows = torch.arange(len(x), device=x.device)
        for _ in range(self.steps):
            margin = partial(logit_margin, y=target[rows])
            _, leads, grad = loss_and_gradient(model, x[rows] + delta[rows], margin)
            rows, grad = rows[leads < 0], grad[leads < 0]
            if not len(rows):
                break
            delta[rows] = clip_to_box(x[rows], delta[rows] + step * ball.ascent_direction(grad))
        return ball.norm(delta).cpu()
