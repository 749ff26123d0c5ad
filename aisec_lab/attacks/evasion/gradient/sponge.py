"""Sponge examples: inputs that raise a model's cost (availability) by activating ReLUs whose zeros would save work."""

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

WIDTH = 0.1  # of the sigmoid, in standard deviations of a layer's inputs: the best of 0.03, 0.1, 0.3 and 1 on digits


@contextmanager
def activation_hooks(model: nn.Module) -> Iterator[list[Tensor]]:
    """Record the inputs of all ReLUs during forward passes.

    Args:
        model: a module with parts `nn.ReLU`.

    Yields:
        A list to which each pass appends one tensor (N, ...) for each call of a ReLU.

    Raises:
        ValueError: no `nn.ReLU` in the model, or an opaque one.
    """
    refuse_opaque(model)
    relu_inputs: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        relu_inputs.append(args[0].clone() if isinstance(module, nn.ReLU) and module.inplace else args[0])

    handles = [m.register_forward_pre_hook(record) for m in model.modules() if isinstance(m, nn.ReLU)]
    if not handles:
        raise ValueError(f"the {type(model).__name__} has no nn.ReLU, whose zeros are what a sponge takes away")
    try:
        yield relu_inputs
    finally:
        for handle in handles:
            handle.remove()


def active_share(relu_inputs: list[Tensor]) -> Tensor:
    """The share (N,) of units, over all ReLUs, with an input above zero."""
    return torch.cat([(a > 0).flatten(1).float() for a in relu_inputs], 1).mean(1)


def activation_density(model: nn.Module, x: Tensor) -> Tensor:
    """The share of ReLU units that each row activates (Shumailov et al., 2021, arXiv:2006.03463, section 3.2).

    It is a proxy, equal on all machines, for the cost of a forward pass on hardware that skips zeros.

    Args:
        model: classifier with modules `nn.ReLU`.
        x: inputs (N, *input) in [0, 1].

    Returns:
        Shares (N,), float32.

    Raises:
        ValueError: no `nn.ReLU` in the model.
    """
    with asked(model), activation_hooks(model) as relu_inputs, torch.no_grad():
        model(x)
    return active_share(relu_inputs)


@dataclass(frozen=True)
class Sponge:
    """Sponge examples (Shumailov et al., 2021, arXiv:2006.03463, section 4.3), by projected gradient ascent in a ball.

    The objective is a smooth count of active units, the sum of a sigmoid of each ReLU's input. The paper's objective,
    the norm of the activations, gives inactive units no gradient. Call contract: docs/evasion-attacks.md; the model
    needs modules `nn.ReLU`, and `y` has no effect.

    Args:
        ball: the threat model: Linf, L2, L1 or L0.
        steps: iterations.
        step_size: length of a step, in units of eps.

    Returns:
        Of the call: inputs, shape of `x`, inside ball and box, each at its highest `activation_density`, x included.

    Raises:
        ValueError: steps or step_size not positive, a model without `nn.ReLU`, and what the call contract lists.
    """

    ball: Ball
    steps: int = 40
    step_size: float = 0.1

    def __post_init__(self) -> None:
        check_ball("Sponge", self.ball)
        if self.steps < 1 or not self.step_size > 0:
            raise ValueError(f"steps and step_size must be positive: {self}")
        warn_of_short_steps("Sponge", self.steps, self.step_size, min_distance=FROM_ANYWHERE)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        best, highest = x, activation_density(model, x)
        delta = self.ball.sample(x, generator)
        with asked(model), activation_hooks(model) as relu_inputs:
            for _ in range(self.steps):
                relu_inputs.clear()
                z = leaf(x + delta)
                model(z)
                density = active_share(relu_inputs)
                best = torch.where(per_row(density > highest, x), z.detach(), best)
                highest = torch.maximum(density, highest)
                grad = gradient(torch.stack([_soft_activation(a).sum() for a in relu_inputs]).sum(), z)
                step = self.step_size * self.ball.eps * self.ball.ascent_direction(mask_blocked(x, delta, grad))
                delta = self.ball.project(x, delta + step)
        last = activation_density(model, x + delta)
        return torch.where(per_row(last > highest, x), x + delta, best)


def _soft_activation(a: Tensor) -> Tensor:
    """A sigmoid of the inputs (N, ...) of a layer, as wide as `WIDTH` of their standard deviations."""
    width = WIDTH * a.detach().flatten(1).std(1) + TINY
    return torch.sigmoid(a / per_row(width, a))
