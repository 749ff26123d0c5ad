"""Sponge inputs: availability, not correctness; they wake up units whose zeros would have saved work."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs
from aisec_lab.attacks.evasion.geometry.balls import Ball, check_ball
from aisec_lab.attacks.evasion.geometry.projections import TINY, mask_blocked, per_row
from aisec_lab.attacks.evasion.gradient.step_warnings import FROM_ANYWHERE, warn_of_short_steps
from aisec_lab.models import gradient, leaf
from aisec_lab.models.asked import asked
from aisec_lab.models.layers import refuse_opaque

WIDTH = 0.1  # of the sigmoid, in standard deviations of a layer: on digits, the densest of 0.03, 0.1, 0.3 and 1


@contextmanager
def activation_hooks(model: nn.Module) -> Iterator[list[Tensor]]:
    """Hear what goes into the ReLUs of a model.

    Yields:
        A list that each pass appends to: inputs (N, ...) of a ReLU, one entry for each call of one.

    Raises:
        ValueError: no `nn.ReLU` in the model, or an opaque one.
    """
    refuse_opaque(model)
    heard: list[Tensor] = []

    def hear(module: nn.Module, args: tuple[Any, ...]) -> None:
        heard.append(args[0].clone() if isinstance(module, nn.ReLU) and module.inplace else args[0])

    handles = [m.register_forward_pre_hook(hear) for m in model.modules() if isinstance(m, nn.ReLU)]
    if not handles:
        raise ValueError(f"the {type(model).__name__} has no nn.ReLU, whose zeros are what a sponge takes away")
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def density_of(heard: list[Tensor]) -> Tensor:
    """The share (N,) of units, over all ReLUs, that are above zero: what the next layers have to multiply."""
    return torch.cat([(a > 0).flatten(1).float() for a in heard], 1).mean(1)


def activation_density(model: nn.Module, x: Tensor) -> Tensor:
    """The share of a model's ReLU units that each row wakes up (Shumailov et al., 2021, section 3.2).

    It stands for the cost of a pass on hardware that skips zeros, the same on every machine.

    Args:
        model: classifier with modules `nn.ReLU`.
        x: inputs (N, *input) in [0, 1].

    Returns:
        Shares (N,), float32.

    Raises:
        ValueError: no `nn.ReLU` in the model.
    """
    with asked(model), activation_hooks(model) as heard, torch.no_grad():
        model(x)
    return density_of(heard)


@dataclass(frozen=True)
class Sponge:
    """Sponge examples (Shumailov et al., 2021, arXiv:2006.03463, section 4.3), by projected gradient ascent in a ball.

    What ascends is the number of awake units, made smooth: a sigmoid of what goes into each. The norms of the
    activations, which the paper ascends, give no gradient to the units that sleep.

    Args of the call:
        model: classifier in evaluation mode, with modules `nn.ReLU`.
        x, y: clean inputs (N, *input) in [0, 1], and their classes, which play no part.
        generator: source of the random start.

    Returns:
        Inputs, shape of `x`, inside ball and box, at the highest `activation_density` seen, the clean row included.

    Raises:
        ValueError: what `PGD` refuses, and a model without `nn.ReLU`.
    """

    ball: Ball
    steps: int = 40
    step_size: float = 0.1  # in units of eps

    def __post_init__(self) -> None:
        check_ball("Sponge", self.ball)
        if self.steps < 1 or not self.step_size > 0:
            raise ValueError(f"steps and step_size must be positive: {self}")
        warn_of_short_steps("Sponge", self.steps, self.step_size, fewest=FROM_ANYWHERE)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        best, highest = x, activation_density(model, x)
        delta = self.ball.sample(x, generator)
        with asked(model), activation_hooks(model) as heard:
            for _ in range(self.steps):
                heard.clear()
                z = leaf(x + delta)
                model(z)
                awake = density_of(heard)
                best = torch.where(per_row(awake > highest, x), z.detach(), best)
                highest = torch.maximum(awake, highest)
                grad = gradient(torch.stack([_awake(a).sum() for a in heard]).sum(), z)
                step = self.step_size * self.ball.eps * self.ball.ascent_direction(mask_blocked(x, delta, grad))
                delta = self.ball.project(x, delta + step)
        last = activation_density(model, x + delta)
        return torch.where(per_row(last > highest, x), x + delta, best)


def _awake(a: Tensor) -> Tensor:
    """A smooth step, from 0 to 1, of what goes into the units of a layer (N, ...)."""
    width = WIDTH * a.detach().flatten(1).std(1) + TINY
    return torch.sigmoid(a / per_row(width, a))
