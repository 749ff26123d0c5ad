"""Goals of an attacker: a margin for each row, negative once the row is adversarial."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

FLOOR = -1e30  # in place of a logit of -inf, such as the logarithm of a probability rounded to 0


def logit_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Logit of class y minus the largest other logit.

    Args:
        logits: (N, K).
        y: classes (N,).

    Returns:
        Shape (N,), negative where another class is predicted.
    """
    logits = logits.clamp(min=FLOOR)
    own = y[:, None]
    others = logits.scatter(1, own, -torch.inf)
    return logits.gather(1, own).squeeze(1) - others.amax(1)


def detector_aware_margin(logits: Tensor, y: Tensor) -> Tensor:
    """The larger logit of class y and the reject option, minus the largest of the other classes.

    Args:
        logits: (N, K + 1); the last column is the reject option.
        y: classes (N,).

    Returns:
        Shape (N,), negative where another class is predicted and the row is not rejected.
    """
    logits = logits.clamp(min=FLOOR)
    protected = torch.stack([logits.gather(1, y[:, None]).squeeze(1), logits[:, -1]]).amax(0)
    return protected - logits[:, :-1].scatter(1, y[:, None], -torch.inf).amax(1)


class Goal(Protocol):
    """What makes a row adversarial, and whether a loss against `y` has to rise (`sign` 1) or to fall (-1)."""

    sign: ClassVar[int]

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Margins (N,) of logits (N, K) and `y` (N,), negative where a row is adversarial."""
        ...


@dataclass(frozen=True)
class Untargeted:
    """Any class but y, the true class."""

    sign: ClassVar[int] = 1

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """The margin (N,) of the true class."""
        return logit_margin(logits, y)


@dataclass(frozen=True)
class Targeted:
    """The class y, which is the target; the loss against y falls."""

    sign: ClassVar[int] = -1

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """The largest other logit minus that of the target (N,)."""
        return -logit_margin(logits, y)


@dataclass(frozen=True)
class EvadeDetector:
    """Any class but y, without being rejected; for models whose last column is the reject option.

    An attack that knows the detector (Carlini & Wagner, 2017, arXiv:1705.07263).

    Its loss is `DetectorAwareMargin`; other losses would maximise the reject option, too.
    """

    sign: ClassVar[int] = 1

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """`detector_aware_margin` (N,)."""
        return detector_aware_margin(logits, y)


@dataclass(frozen=True)
class RegressionTolerance:
    """An output farther than `tolerance` from y, for a regression with outputs (N, 1) and true values y (N,), floats.

    Its losses are `AbsoluteError`, and `SignedError` for one direction.

    Args:
        tolerance: at least 0, in units of y.

    Raises:
        ValueError: a tolerance that is negative or NaN.
    """

    tolerance: float
    sign: ClassVar[int] = 1
    real: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be a number >= 0, got {self.tolerance}")

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """The tolerance minus the absolute error (N,)."""
        return self.tolerance - (logits.squeeze(1) - y).abs()


def with_target(goal: Goal, y: Tensor, target: int | None) -> tuple[Goal, Tensor]:
    """The goal and classes for rows of which only the true classes are known.

    Args:
        goal: without a target.
        y: true classes (N,).
        target: the class that every row shall get; None for any wrong one.

    Returns:
        The goal, and the classes (N,) that belong to it.
    """
    return (goal, y) if target is None else (Targeted(), torch.full_like(y, target))


def check_untargeted(goal: Goal) -> None:
    """Refuse, with a ValueError, `Targeted` where y are the true classes: they would be the targets."""
    if goal == Targeted():
        raise ValueError("the goal Targeted takes the true classes for targets here: name the class instead, target=3")
