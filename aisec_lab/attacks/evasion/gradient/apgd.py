"""Auto-PGD: gradient ascent that chooses its step by itself (Croce & Hein, 2020, arXiv:2003.01690)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import is_regression, prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import Ball, check_ball
from aisec_lab.attacks.evasion.gradient.apgd_run import run_apgd
from aisec_lab.attacks.evasion.minimum_norm.tracker import top_wrong_classes
from aisec_lab.attacks.evasion.search.best import LowestMargin
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss, TargetedDLR, TargetedLoss


@dataclass(frozen=True)
class APGD:
    """Auto-PGD on one loss: APGD-CE, and with the loss `DLR` APGD-DLR; in L1 the one of arXiv:2103.01208 (`run_apgd`).

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
        x = prepare_inputs(model, x, y, generator, real=is_regression(self.goal, self.loss))
        with scored(model):
            found = LowestMargin(model, x, y, self.goal)
            for _ in range(self.restarts):
                run_apgd(
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
    target is tried on the survivors alone, or where these are few, with others in one pass (`BestSoFar.per_target`).
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
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            found = LowestMargin(model, x, y, Untargeted())
            for several, target in found.per_target(top_wrong_classes(found.logits, y, self.targets)):
                run_apgd(
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
