"""Views of a defended model that make every attack adaptive, and an attack that looks through one of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import Attack
from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.models.contexts import trains
from aisec_lab.models.layers import refuse_opaque


class View(Protocol):
    """How an attacker looks at a classifier: through another classifier over the same weights."""

    def __call__(self, model: nn.Module) -> nn.Module:
        """A classifier, in the mode of `model`, which stays as it is."""
        ...


class EOTModel(nn.Module):
    """The mean logits of several passes through a randomised classifier."""

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws
        self.training = trains(model)  # of this module alone: the model's own parts keep their modes

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *input)."""
        return torch.stack([self.model(x) for _ in range(self.draws)]).mean(0)


class BPDAModel(nn.Module):
    """The same logits as the model's; backward, some of its layers are taken for a surrogate."""

    def __init__(self, model: nn.Module, layers: list[nn.Module], surrogate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.surrogate = model, surrogate
        self.layers = tuple(layers)  # they are registered as parts of the model already
        self.training = trains(model)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *input)."""
        # hooks for the time of one pass: the model is not changed, and `frozen` finds no hook to take away
        handles = [layer.register_forward_hook(self._straight) for layer in self.layers]
        try:
            logits: Tensor = self.model(x)
        finally:
            for handle in handles:
                handle.remove()
        return logits

    def _straight(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        near = self.surrogate(args[0])
        return output.detach() + (near - near.detach())


def identity(x: Tensor) -> Tensor:
    """The input itself: the surrogate of a layer that hardly changes its input."""
    return x


@dataclass(frozen=True)
class EOT:
    """Expectation over transformation (Athalye et al., 2018, arXiv:1802.00420, section 4.2).

    Args of the call:
        model: a randomised classifier; it draws anew in each of the passes.

    Returns:
        A classifier of the mean logits over `draws` passes, whose gradient is the mean of their gradients.
    """

    draws: int = 16

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be positive, got {self.draws}")

    def __call__(self, model: nn.Module) -> nn.Module:
        return EOTModel(model, self.draws)


@dataclass(frozen=True)
class BPDA:
    """Backward pass differentiable approximation (Athalye et al., 2018, arXiv:1802.00420, section 4.1).

    Forward nothing changes. Backward, each part of the model that has an attribute `differentiable`, and that
    false, is taken for the surrogate: a function of the part's input that resembles it and has a gradient.

    Args of the call:
        model: a classifier with such parts, at any depth.

    Raises:
        ValueError: there are none, or the model is opaque.
    """

    surrogate: Callable[[Tensor], Tensor] = identity

    def __call__(self, model: nn.Module) -> nn.Module:
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
    """An attack on what a view shows of the model.

    Args:
        ball: the threat.
        attack: makes the attack of a ball: a class such as `PGD`, or `partial(PGD, steps=100)`.
        view: what the attack sees in place of the model.

    Args of the call, returns, raises: as for the attack, which is given `view(model)`. What it found is to be judged on
    the model itself.
    """

    ball: Ball
    attack: Callable[[Ball], Attack]
    view: View

    def __post_init__(self) -> None:
        self.attack(self.ball)  # what the attack refuses is refused at once

    @property
    def goal(self) -> Goal:
        """The attack's."""
        return getattr(self.attack(self.ball), "goal", Untargeted())

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.attack(self.ball)(self.view(model), x, y, generator=generator)
