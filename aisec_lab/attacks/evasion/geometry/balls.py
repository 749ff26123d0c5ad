"""Threat models: balls of a norm, intersected with the box [0, 1]."""

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.hyperplane import (
    all_coordinates,
    smallest_step,
    steepest_first,
    whole_coordinates,
)
from aisec_lab.attacks.evasion.geometry.projections import (
    TINY,
    clip_to_box,
    normalise_gradient,
    per_row,
    project_l1,
    project_l2,
    project_with_box,
)
from aisec_lab.core.row_noise import RowNoise

LEAP = 1e4  # step length in widths of the box; on digits, PGD in L0 got stronger with it up to this value


@dataclass(frozen=True)
class Ball(ABC):
    """Perturbations delta (N, *input) of norm at most eps with x + delta inside [0, 1].

    Args:
        eps: the radius, at least 0, in units of the inputs, whose range is [0, 1].

    Raises:
        ValueError: an eps that is negative, infinite or NaN.
    """

    eps: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise ValueError(f"eps of {self.name} must be a finite number >= 0, got {self.eps}")

    @property
    def name(self) -> str:
        """The norm's name, as tables spell it."""
        return type(self).__name__

    def with_eps(self, eps: float) -> Self:
        """A ball of the same norm with another radius."""
        return replace(self, eps=eps)

    def project(self, x: Tensor, delta: Tensor) -> Tensor:
        """The exact Euclidean projection of perturbations of x (N, *input) onto ball and box, shape of `x`."""
        return self.project_per_row(x, delta, x.new_full((len(x),), self.eps, dtype=torch.float64))

    @abstractmethod
    def norm(self, delta: Tensor) -> Tensor:
        """The norm (N,) of each perturbation (N, *input)."""

    @abstractmethod
    def project_per_row(self, x: Tensor, delta: Tensor, eps: Tensor) -> Tensor:
        """The exact Euclidean projection onto the box and, row by row, balls of radii eps (N,); shape of `x`."""

    @abstractmethod
    def step_to_hyperplane(self, x: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
        """The smallest perturbation, in this norm, that raises a linear function by a given amount inside the box.

        Args:
            x: points (N, *input) of the box.
            slope: gradients of the functions, shape of `x`.
            rise: by how much each has to rise (N,), or to fall where negative.

        Returns:
            Perturbations, shape of `x`; where the box contains none, the one that comes nearest to the rise.
        """

    @abstractmethod
    def ascent_direction(self, grad: Tensor) -> Tensor:
        """The direction of a step of length `step_size * eps`, shape of `grad`; zero where the gradient is."""

    @abstractmethod
    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random perturbation inside ball and box, shape of `x`; the noise is keyed by row (`RowNoise`)."""


@dataclass(frozen=True)
class Linf(Ball):
    """No coordinate changes by more than eps: 8 of 255 is 8 / 255; an eps above 1, the box's width, is warned of."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps > 1:
            warnings.warn(
                f"eps of Linf is a share of the box [0, 1], and {self.eps:g} is wider than that, so that nothing is "
                "robust: for 8 of 0..255 write Linf(8 / 255)",
                stacklevel=3,
            )

    def norm(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(1)

    def project_per_row(self, x: Tensor, delta: Tensor, eps: Tensor) -> Tensor:
        eps = per_row(eps, delta).to(delta.dtype)
        return clip_to_box(x, delta.clamp(-eps, eps))

    def step_to_hyperplane(self, x: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
        return smallest_step(
            x, slope, rise, lambda u, room, rise: all_coordinates(u, room, rise, speed=torch.ones_like(u))
        )

    def ascent_direction(self, grad: Tensor) -> Tensor:
        return grad.sign()

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        uniform = RowNoise(x, generator).uniform(x.shape[1:], 0)
        return self.project(x, self.eps * (2 * uniform - 1))


@dataclass(frozen=True)
class L2(Ball):
    """The Euclidean norm of the change is at most eps."""

    def norm(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).norm(dim=1)

    def project_per_row(self, x: Tensor, delta: Tensor, eps: Tensor) -> Tensor:
        return project_with_box(x, delta, eps, self.norm, project_l2)

    def step_to_hyperplane(self, x: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
        return smallest_step(x, slope, rise, lambda u, room, rise: all_coordinates(u, room, rise, speed=u))

    def ascent_direction(self, grad: Tensor) -> Tensor:
        # scaled by the largest entry first, so that squares of tiny gradients do not underflow
        grad = normalise_gradient(grad)
        return grad / per_row(self.norm(grad) + TINY, grad)

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        noise = RowNoise(x, generator)
        direction = self.ascent_direction(noise.normal(x.shape[1:], 0))
        radius = self.eps * noise.uniform((), 1) ** (1 / x.shape[1:].numel())
        return self.project(x, direction * per_row(radius, x))


@dataclass(frozen=True)
class L1(Ball):
    """The absolute changes sum to at most eps."""

    def norm(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().sum(1)

    def project_per_row(self, x: Tensor, delta: Tensor, eps: Tensor) -> Tensor:
        return project_with_box(x, delta, eps, self.norm, project_l1)

    def step_to_hyperplane(self, x: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
        return smallest_step(x, slope, rise, steepest_first)

    def ascent_direction(self, grad: Tensor) -> Tensor:
        # The steepest direction of this norm is a single coordinate, which takes far too many steps. Along the whole
        # gradient, the projection makes the perturbation sparse, and only stationary points of the loss are fixed.
        return normalise_gradient(grad)

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        # D of D + 1 exponentials, divided by their sum, are uniform on sums of at most 1
        noise = RowNoise(x, generator)
        exponentials = -torch.log1p(-noise.uniform((x.shape[1:].numel() + 1,), 0))
        simplex = exponentials[:, 1:] / (exponentials.sum(1, keepdim=True) + TINY)
        signs = 2 * noise.integers(0, 2, x.shape[1:], 1) - 1
        return self.project(x, self.eps * signs * simplex.view_as(x))


@dataclass(frozen=True)
class L0(Ball):
    """At most eps coordinates change.

    Args:
        eps: number of coordinates, a whole number; of an image each channel of a pixel counts.

    Raises:
        ValueError: an eps that is negative or no whole number.
    """

    eps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps != int(self.eps):
            raise ValueError(f"eps of L0 is a number of coordinates, a whole number, got {self.eps}")

    def norm(self, delta: Tensor) -> Tensor:
        return (delta != 0).flatten(1).sum(1).to(delta.dtype)

    def project_per_row(self, x: Tensor, delta: Tensor, eps: Tensor) -> Tensor:
        clipped = clip_to_box(x, delta)
        gain = (clipped * (2 * delta - clipped)).flatten(1)  # delta^2 - (delta - clipped)^2
        order = gain.argsort(dim=1, descending=True, stable=True)
        first = torch.arange(gain.shape[1], device=x.device) < eps[:, None]
        return clipped * torch.zeros_like(gain).scatter(1, order, first.to(x.dtype)).view_as(clipped)

    def step_to_hyperplane(self, x: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
        return smallest_step(x, slope, rise, whole_coordinates)

    def ascent_direction(self, grad: Tensor) -> Tensor:
        # The whole gradient, as in L1, but with long steps: after a short one the projection would keep the same
        # coordinates forever; after a long one it keeps those of largest gradient times room.
        return LEAP * normalise_gradient(grad)

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        # a random set of coordinates, each anywhere in the box
        noise = RowNoise(x, generator)
        chosen = noise.uniform((x.shape[1:].numel(),), 0).topk(min(int(self.eps), x.shape[1:].numel()), dim=1).indices
        mask = torch.zeros_like(x.flatten(1)).scatter(1, chosen, 1).view_as(x)
        return clip_to_box(x, mask * (noise.uniform(x.shape[1:], 1) - x))


def check_ball(attack: str, ball: object, *kinds: type[Ball], instead: str = "") -> None:
    """Refuse a ball that an attack does not support, and anything that is no ball.

    Args:
        attack: its name.
        ball: what it was given.
        kinds: the balls that it supports; all of them if none is named.
        instead: the attacks that support the others.

    Raises:
        ValueError: another one.
    """
    if isinstance(ball, kinds or Ball):
        return
    known = [kind.__name__ for kind in kinds or (Linf, L2, L1, L0)]
    listed = " and ".join(filter(None, (", ".join(known[:-1]), known[-1])))
    given, mend = repr(ball), ": a ball is made as Linf(8 / 255)"
    if isinstance(ball, Ball):
        given, mend = ball.name, f": use {instead}" if instead else ""
    raise ValueError(f"{attack} knows the ball{'s' if known[1:] else ''} {listed}, not {given}{mend}")
