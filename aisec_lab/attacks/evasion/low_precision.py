"""Attacks that search in bfloat16, which is faster on some hardware, with results judged in float32."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import Attack, prepare_inputs
from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.core.modes import in_training_mode
from aisec_lab.models.checked import checked_model


class BF16Model(nn.Module):
    """A classifier whose convolutions and matrix products are in bfloat16, forward and backward.

    Args:
        model: classifier.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = in_training_mode(model)  # not .eval(), which would change the modes of the model's parts

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *input), in the dtype of `x`."""
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.to(x.dtype)


@dataclass(frozen=True)
class LowPrecision:
    """An attack that searches in bfloat16; its result is judged in float32.

    bfloat16 has 8 significant bits. A row that is adversarial for the bfloat16 model only is attacked once more, in
    float32. A row that is not adversarial is returned at the point of lowest bfloat16 margin.

    Call contract: docs/evasion-attacks.md.

    Args:
        ball: the threat model.
        attack: makes the attack of a ball: a class such as `AutoAttack`, or `partial(PGD, steps=100)`.
    """

    ball: Ball
    attack: Callable[[Ball], Attack]

    def __post_init__(self) -> None:
        self.attack(self.ball)  # raise its errors now, not at the call

    @property
    def goal(self) -> Goal:
        """The goal of the attack."""
        return getattr(self.attack(self.ball), "goal", Untargeted())

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        attack, bf16 = self.attack(self.ball), BF16Model(model)
        margin = self.goal.margin
        x_adv = attack(bf16, x, y, generator=generator)
        with checked_model(model), torch.no_grad():
            bf16_only = (margin(bf16(x_adv), y) < 0) & ~(margin(model(x_adv), y) < 0)
        if bf16_only.any():
            x_adv[bf16_only] = attack(model, x[bf16_only], y[bf16_only], generator=generator)
        return x_adv
