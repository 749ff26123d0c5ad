"""How far rows are from a model's decision boundary, in several directions and norms."""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import scored
from aisec_lab.attacks.evasion.geometry.balls import L1, L2, Ball, Linf
from aisec_lab.attacks.evasion.geometry.projections import clip_to_box
from aisec_lab.attacks.evasion.search.goals import logit_margin
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient
from aisec_lab.models import logits_of
from aisec_lab.models.asked import asked
from aisec_lab.models.layers import refuse_opaque

BALLS: tuple[Ball, ...] = (L1(1), L2(1), Linf(1))  # their radii play no part


class Margins(Protocol):
    """Settings of a way to measure distances to the boundary."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Distances (N, F) of rows x (N, *input) of classes y (N,), on the CPU; the same F for any model."""
        ...


@dataclass(frozen=True)
class BlindWalk:
    """Distances at which random directions leave the class (Maini et al., 2021, arXiv:2104.10706, section 4.2.2).

    Only winning classes are asked for. Directions are Laplace, Gaussian and uniform noise, measured in L1, L2 and Linf.

    Args:
        directions: of each kind of noise.
        steps: places on the way that are tried, one after the other; a row that never leaves gets the length of the
            walk as if there were no box.
        step: how much farther each is, in units of the noise. The paper's steps of 0.005 are for larger images.

    Returns:
        Distances (N, 3 * directions), 0 for rows that the model gets wrong.
    """

    directions: int = 10
    steps: int = 20
    step: float = 0.05

    def __post_init__(self) -> None:
        if min(self.directions, self.steps) < 1 or not self.step > 0:
            raise ValueError(f"directions, steps and step must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        distances = []
        with asked(model):
            for ball in BALLS:
                for _ in range(self.directions):
                    uniform = (2 * torch.rand(x.shape, generator=generator) - 1).clamp(-1 + 1e-6, 1 - 1e-6).to(x)
                    noise = {"L1": -uniform.sign() * (1 - uniform.abs()).log(), "Linf": uniform}.get(
                        ball.name, torch.special.ndtri((uniform + 1) / 2)
                    )
                    distances.append(self._walked(model, x, y, noise, ball))
        return torch.stack(distances, 1)

    def _walked(self, model: nn.Module, x: Tensor, y: Tensor, noise: Tensor, ball: Ball) -> Tensor:
        distance = ball.norm(self.steps * self.step * noise)  # where the box holds a walk back, it is not near
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
    """Distances to every class by gradient descent (Maini et al., 2021, arXiv:2104.10706, section 4.2.1): white box.

    In each norm, steps are taken along its steepest direction that lowers the lead over the class, until it wins.

    Args:
        steps: at most; a row that does not arrive is as far as it got.
        step: their lengths in L1, L2 and Linf.

    Returns:
        Distances (N, 3 * K), in each norm from the nearest class to the farthest; the first is 0, the class that the
        model gives.

    Raises:
        ValueError: on a call with an opaque model, which has no gradient, or one that answers with probabilities.
    """

    steps: int = 50
    step: tuple[float, float, float] = (0.5, 0.1, 0.02)

    def __post_init__(self) -> None:
        if self.steps < 1 or not min(self.step) > 0:
            raise ValueError(f"steps and step must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        refuse_opaque(model)
        with scored(model):
            classes = logits_of(model, x[:1]).shape[1]
            targets = [torch.full_like(y, label) for label in range(classes)]
            distances = [
                torch.stack([self._reached(model, x, target, ball, step) for target in targets]).sort(0).values
                for ball, step in zip(BALLS, self.step, strict=True)
            ]
        return torch.cat(distances).T

    def _reached(self, model: nn.Module, x: Tensor, target: Tensor, ball: Ball, step: float) -> Tensor:
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
