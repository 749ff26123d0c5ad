"""Saying less: the largest probabilities only, a few decimals, or the winning class alone.

Rounded answers and labels are piecewise constant: their gradient is zero, which hides the model from gradient attacks
without making it any safer. They are marked `differentiable = False`: look through `BPDA`, or ask `Square`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.data import Splits
from aisec_lab.models import in_mode_of
from aisec_lab.models.asked import Checked
from aisec_lab.models.layers import logarithms


class Truncated(nn.Module):
    """The k largest of probabilities, the others each their mean."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K)."""
        check_not_probabilities(logits)
        exact = logits.log_softmax(1)
        if self.k >= exact.shape[1]:
            return exact
        values, classes = exact.sort(dim=1, descending=True, stable=True)  # `topk` may pass over the first of a tie
        even = values[:, self.k :].logsumexp(1, keepdim=True) - math.log(exact.shape[1] - self.k)
        even = torch.minimum(even, values[:, self.k - 1 : self.k])  # a mean of equal numbers may be rounded above them
        return even.expand_as(exact).scatter(1, classes[:, : self.k], values[:, : self.k])


class RoundedAnswer(nn.Module):
    """Probabilities to so many decimals, divided by their sum."""

    differentiable: ClassVar[bool] = False

    def __init__(self, decimals: int) -> None:
        super().__init__()
        self.decimals = decimals

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K)."""
        check_not_probabilities(logits)
        rounded = logits.softmax(1).round(decimals=self.decimals)
        nothing = rounded.sum(1, keepdim=True) == 0
        return logarithms((rounded + nothing) / (rounded + nothing).sum(1, keepdim=True))


class Label(nn.Module):
    """All probability on the winning class."""

    differentiable: ClassVar[bool] = False

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K)."""
        winner = F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
        return logarithms(winner + 0 * logits)  # the true gradient, zero, and not none at all


@dataclass(frozen=True)
class TopK:
    """Publish the k largest probabilities (Tramèr et al., 2016, arXiv:1609.02943, section 7). Called as `Undefended`.

    The client knows that the others share the rest, and nothing of how: each of them is given its mean, which is the
    published vector of largest entropy. So it sums to 1 and its winner is the model's.
    """

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}: for the class alone use LabelsOnly")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(Checked(model), Truncated(self.k)))


@dataclass(frozen=True)
class RoundedProbabilities:
    """Publish probabilities to so many decimals (Tramèr et al., 2016, section 7). Called as `Undefended`.

    What is published is the rounded vector over its sum, and an even one where all is rounded to 0. Classes that become
    equal tie, and `argmax` then has the first of them, which need not be the model's winner.
    """

    decimals: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= 6:
            raise ValueError(f"decimals must be from 0 to 6, which float32 can tell apart, got {self.decimals}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(Checked(model), RoundedAnswer(self.decimals)))


@dataclass(frozen=True)
class LabelsOnly:
    """Publish the winning class and no probability (Tramèr et al., 2016, section 6). Called as `Undefended`."""

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(Checked(model), Label()))
