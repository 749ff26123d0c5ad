"""What an attacker wants: a margin per row, negative once it is reached."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

FLOOR = -1e30  # in place of a logit of -inf, such as the logarithm of a probability rounded to 0


def lead(logits: Tensor, y: Tensor) -> Tensor:
    """By how much class y (N,) leads the best other class of logits (N, K): shape (N,)."""
    logits = logits.clamp(min=FLOOR)
    own = y[:, None]
    others = logits.scatter(1, own, -torch.inf)
    return logits.gather(1, own).squeeze(1) - others.amax(1)


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
        return lead(logits, y)


@dataclass(frozen=True)
class Targeted:
    """The class y, which is here the target; the loss against y descends."""

    sign: ClassVar[int] = -1

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """What the target lacks to the lead."""
        return -lead(logits, y)
