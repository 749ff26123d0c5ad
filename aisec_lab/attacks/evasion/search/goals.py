"""What an attacker wants: a margin per row, negative once it is reached."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

FLOOR = -1e30  # in place of a logit of -inf, such as the logarithm of a probability rounded to 0


def logit_margin(logits: Tensor, y: Tensor) -> Tensor:
    """By how much class y (N,) leads the best other class of logits (N, K): shape (N,)."""
    logits = logits.clamp(min=FLOOR)
    own = y[:, None]
    others = logits.scatter(1, own, -torch.inf)
    return logits.gather(1, own).squeeze(1) - others.amax(1)


def detector_aware_margin(logits: Tensor, y: Tensor) -> Tensor:
    """By how much class y (N,) or the reject option, the last column of logits (N, K + 1), leads the rest: (N,)."""
    logits = logits.clamp(min=FLOOR)
    held = torch.stack([logits.gather(1, y[:, None]).squeeze(1), logits[:, -1]]).amax(0)
    return held - logits[:, :-1].scatter(1, y[:, None], -torch.inf).amax(1)


class Goal(Protocol):
    """What counts as success, and which way a loss against `y` has to move for it."""

    sign: ClassVar[int]

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Margin (N,) of logits (N, K), negative when the attacker has won."""
        ...


@dataclass(frozen=True)
class Untargeted:
    """Any class but y, the true class; the loss against y ascends."""

    sign: ClassVar[int] = 1

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """The lead of the true class."""
        return logit_margin(logits, y)


@dataclass(frozen=True)
class Targeted:
    """The class y, which is here the target; the loss against y descends."""

    sign: ClassVar[int] = -1

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """What the target lacks to the lead."""
        return -logit_margin(logits, y)


@dataclass(frozen=True)
class EvadeDetector:
    """Any class but y, of a model whose last column says "rejected": to be rejected is no success.

    Its loss is `DetectorAwareMargin`; the others would ascend into the reject option.
    """

    sign: ClassVar[int] = 1

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """The lead of the true class or of the rejection, whichever is higher."""
        return detector_aware_margin(logits, y)


@dataclass(frozen=True)
class RegressionTolerance:
    """An answer farther than `tolerance` from y: of a regression, whose outputs (N, 1) and y (N,) are numbers.

    Its losses are `AbsoluteError`, and `SignedError` in one direction.

    Raises:
        ValueError: a tolerance that is negative or no number.
    """

    tolerance: float
    sign: ClassVar[int] = 1
    real: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be a number >= 0, got {self.tolerance}")

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """What the error lacks to the tolerance."""
        return self.tolerance - (logits.squeeze(1) - y).abs()


def with_target(goal: Goal, y: Tensor, target: int | None) -> tuple[Goal, Tensor]:
    """What is learned on rows of which only the true classes are known.

    Args:
        goal: without a target.
        y: true classes (N,).
        target: the class that every row is to get; None for any wrong one.

    Returns:
        The goal, and the classes (N,) that belong to it.
    """
    return (goal, y) if target is None else (Targeted(), torch.full_like(y, target))


def check_untargeted(goal: Goal) -> None:
    """Refuse, with a ValueError, `Targeted` where the classes at hand are the true ones: they would be the targets."""
    if goal == Targeted():
        raise ValueError("the goal Targeted takes the true classes for targets here: name the class instead, target=3")
