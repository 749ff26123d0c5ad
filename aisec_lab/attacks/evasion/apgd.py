"""Auto-PGD: gradient ascent that chooses its step by itself (Croce & Hein, 2020, arXiv:2003.01690)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.balls import Ball, check_ball
from aisec_lab.attacks.evasion.climb import climb
from aisec_lab.attacks.evasion.door import admit, of_numbers, scored
from aisec_lab.attacks.evasion.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.losses import CrossEntropy, Loss, TargetedDLR, TargetedLoss
from aisec_lab.attacks.evasion.minimal import likeliest
from aisec_lab.attacks.evasion.search import Lowest


@dataclass(frozen=True)
class APGD:
    """Auto-PGD on one loss: APGD-CE, and with the loss `DLR` APGD-DLR; in L1 the one of arXiv:2103.01208 (`climb`).

    Args of the call, raises: as for `PGD`.

    Returns:
        Adversarial inputs, shape of `x`, inside ball and box: a row that is won as it is untouched, one that is
        won on the way where that was first seen, any other at its point of lowest margin.
    """

    ball: Ball
    steps: int = 100
    restarts: int = 1
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()
    larger_first: bool = False  # whether six tenths of the steps are spent in 3 eps and in 2 eps

    def __post_init__(self) -> None:
        check_ball("APGD", self.ball)
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps and restarts must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = admit(model, x, y, generator, real=of_numbers(self.goal, self.loss))
        with scored(model):
            found = Lowest(model, x, y, self.goal)
            for _ in range(self.restarts):
                climb(
                    model,
                    found,
                    lambda logits, y: self.goal.sign * self.loss(logits, y),
                    y,
                    ball=self.ball,
                    steps=self.steps,
                    generator=generator,
                    larger_first=self.larger_first,
                )
        return found.x_adv


@dataclass(frozen=True)
class TargetedAPGD:
    """Auto-PGD towards the likeliest wrong classes, one after the other (section 5: APGD-T).

    Args of the call, returns, raises: as for `APGD`. Any wrong class wins, not only the one aimed at; each next
    target is tried on the survivors alone, or where these are few, with others in one pass (`Best.towards`).
    """

    ball: Ball
    steps: int = 100
    targets: int = 9
    loss: TargetedLoss = TargetedDLR()
    larger_first: bool = False

    def __post_init__(self) -> None:
        check_ball("TargetedAPGD", self.ball)
        if self.steps < 1 or self.targets < 1:
            raise ValueError(f"steps and targets must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = admit(model, x, y, generator)
        with scored(model):
            found = Lowest(model, x, y, Untargeted())
            for several, target in found.towards(likeliest(found.logits, y, self.targets)):
                climb(
                    model,
                    several,
                    self.loss,
                    several.y,
                    target,
                    ball=self.ball,
                    steps=self.steps,
                    generator=generator,
                    larger_first=self.larger_first,
                )
        return found.x_adv
