"""Searching in bfloat16, which is faster where the machine multiplies in it, without believing bfloat16."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import Attack, prepare_inputs
from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.models.asked import asked
from aisec_lab.models.contexts import trains


class BF16Model(nn.Module):
    """A classifier whose convolutions and matrix products are in bfloat16, forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = trains(model)  # of this module alone: the model's own parts keep their modes

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *input), in the type of `x`."""
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.to(x.dtype)


@dataclass(frozen=True)
class LowPrecision:
    """An attack that searches in bfloat16, and is not believed: what it found is judged in float32.

    A number of bfloat16 has 8 significant bits. A row that is won to it and not to the model itself is attacked once
    more, in float32; a row that it left standing comes back at the point of lowest margin that it saw, to be judged on
    the model like every other.

    Args:
        ball: the threat.
        attack: makes the attack of a ball: a class such as `AutoAttack`, or `partial(PGD, steps=100)`.

    Args of the call, returns, raises: as for the attack.
    """

    ball: Ball
    attack: Callable[[Ball], Attack]

    def __post_init__(self) -> None:
        self.attack(self.ball)  # what the attack refuses is refused at once

    @property
    def goal(self) -> Goal:
        """The attack's."""
        return getattr(self.attack(self.ball), "goal", Untargeted())

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        attack, rounded = self.attack(self.ball), BF16Model(model)
        margin = self.goal.margin
        x_adv = attack(rounded, x, y, generator=generator)
        with asked(model), torch.no_grad():
            false = (margin(rounded(x_adv), y) < 0) & ~(margin(model(x_adv), y) < 0)
        if false.any():
            x_adv[false] = attack(model, x[false], y[false], generator=generator)
        return x_adv
