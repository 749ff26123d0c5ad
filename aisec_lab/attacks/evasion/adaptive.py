"""Adaptive attacks on defended models: EOT for randomised and BPDA for non-differentiable defenses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import Attack
from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.core.modes import in_training_mode
from aisec_lab.models.layers import refuse_opaque


class View(Protocol):
    """A function that wraps a classifier for an attack: another classifier with the same weights."""

    def __call__(self, model: nn.Module) -> nn.Module:
        """Wrap a classifier.

        Args:
            model: classifier; it is not changed.

        Returns:
            A classifier in the mode of `model`, of the same inputs to logits (N, K).
        """
        ...


class EOTModel(nn.Module):
    """The mean logits of several passes through a randomised classifier.

    Args:
        model: a randomised classifier.
        draws: number of passes.
    """

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws
        self.training = in_training_mode(model)  # not .eval(), which would change the modes of the model's parts

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits (N, K) of inputs (N, *input)."""
        return torch.stack([self.model(x) for _ in range(self.draws)]).mean(0)


class BPDAModel(nn.Module):
    """A classifier with the same logits as the model; some layers have the gradient of a surrogate.

    Args:
        model: classifier.
        layers: parts of the model.
        surrogate: a differentiable function of a layer's input that approximates its output.
    """

    def __init__(self, model: nn.Module, layers: list[nn.Module], surrogate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.surrogate = model, surrogate
        self.layers = tuple(layers)  # a tuple, as they are registered as parts of the model already
        self.training = in_training_mode(model)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *input)."""
        # hooks only during a pass, so that the model stays unchanged and `frozen` finds no hooks to remove
        handles = [layer.register_forward_hook(self._straight_through) for layer in self.layers]
        try:
            logits: Tensor = self.model(x)
        finally:
            for handle in handles:
                handle.remove()
        return logits

    def _straight_through(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The layer's output, with the surrogate's gradient."""
        approximation = self.surrogate(args[0])
        return output.detach() + (approximation - approximation.detach())


def identity(x: Tensor) -> Tensor:
    """The input itself: the surrogate of a layer that hardly changes its input."""
    return x


@dataclass(frozen=True)
class EOT:
    """Expectation over transformation (Athalye et al., 2018, arXiv:1802.00420, section 4.2).

    Args:
        draws: number of forward passes that are averaged.

    Raises:
        ValueError: draws below 1.
    """

    draws: int = 16

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be positive, got {self.draws}")

    def __call__(self, model: nn.Module) -> nn.Module:
        """Average a randomised model.

        Args:
            model: classifier that draws anew in each pass.

        Returns:
            A classifier of the mean logits; its gradient is the mean of the passes' gradients.
        """
        return EOTModel(model, self.draws)


@dataclass(frozen=True)
class BPDA:
    """Backward pass differentiable approximation (Athalye et al., 2018, arXiv:1802.00420, section 4.1).

    The forward pass stays unchanged. In the backward pass, each module with an attribute `differentiable = False` is
    replaced by the surrogate.

    Args:
        surrogate: a differentiable function of a module's input that approximates its output.
    """

    surrogate: Callable[[Tensor], Tensor] = identity

    def __call__(self, model: nn.Module) -> nn.Module:
        """Replace the gradient of non-differentiable modules.

        Args:
            model: classifier with such modules, at any depth.

        Returns:
            A classifier with the same logits.

        Raises:
            ValueError: no such module, or an opaque model.
        """
        refuse_opaque(model)
        layers = [module for module in model.modules() if getattr(module, "differentiable", True) is False]
        if not layers:
            raise ValueError(
                f"BPDA found no part of the {type(model).__name__} to replace: "
                "set `differentiable = False` on the modules whose gradient is of no use"
            )
        return BPDAModel(model, layers, self.surrogate)


@dataclass(frozen=True)
class Adaptive:
    """An attack on a view of the model.

    Call contract: docs/evasion-attacks.md. The attack runs on `view(model)`, and what the page guarantees holds for the
    view. So measure robust accuracy with the model itself.

    Args:
        ball: the threat model.
        attack: makes the attack of a ball: a class such as `PGD`, or `partial(PGD, steps=100)`.
        view: wraps the model for the attack, such as `EOT` or `BPDA`.
    """

    ball: Ball
    attack: Callable[[Ball], Attack]
    view: View

    def __post_init__(self) -> None:
        self.attack(self.ball)  # raise its errors now, not at the call

    @property
    def goal(self) -> Goal:
        """The goal of the attack."""
        return getattr(self.attack(self.ball), "goal", Untargeted())

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.attack(self.ball)(self.view(model), x, y, generator=generator)
