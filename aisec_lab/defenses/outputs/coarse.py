"""Output defenses that publish less: the top-k probabilities, few decimals, or the label alone.

Rounded probabilities and labels are piecewise constant. Their gradient is zero, which stops gradient attacks and makes
the model no more robust. They are marked `differentiable = False`: attack through `BPDA`, or with `Square`.
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


class TopKOutput(nn.Module):
    """Keep the k largest probabilities, and replace each of the others by their mean.

    Args:
        k: at least 1.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K)."""
        check_not_probabilities(logits)
        exact = logits.log_softmax(1)
        if self.k >= exact.shape[1]:
            return exact
        values, classes = exact.sort(dim=1, descending=True, stable=True)  # `topk` may not take the first of a tie
        even = values[:, self.k :].logsumexp(1, keepdim=True) - math.log(exact.shape[1] - self.k)
        even = torch.minimum(even, values[:, self.k - 1 : self.k])  # a mean may be rounded above them
        return even.expand_as(exact).scatter(1, classes[:, : self.k], values[:, : self.k])


class RoundedOutput(nn.Module):
    """Round probabilities and divide them by their sum.

    Args:
        decimals: 0 to 6.
    """

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


class LabelOutput(nn.Module):
    """Put all probability on the top class; the gradient is zero."""

    differentiable: ClassVar[bool] = False

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K)."""
        label = F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
        return logarithms(label + 0 * logits)  # so that the gradient is zero, as it truly is, and not missing


@dataclass(frozen=True)
class TopK:
    """Publish the k largest probabilities (Tramèr et al., 2016, arXiv:1609.02943, section 7).

    Each of the other classes gets the mean of what is left: of all vectors with these k entries it has the largest
    entropy. The published vector sums to 1 and keeps the model's top class. Call contract: docs/defenses.md, "Output
    defense".

    Args:
        k: at least 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}: for the class alone use LabelsOnly")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(Checked(model), TopKOutput(self.k)))


@dataclass(frozen=True)
class RoundedProbabilities:
    """Publish rounded probabilities (Tramèr et al., 2016, arXiv:1609.02943, section 7).

    The rounded vector is divided by its sum; where all entries are rounded to 0, it is uniform. Classes may tie after
    rounding: `argmax` then takes the first of them, which need not be the model's top class. Call contract:
    docs/defenses.md, "Output defense".

    Args:
        decimals: 0 to 6.
    """

    decimals: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= 6:
            raise ValueError(f"decimals must be from 0 to 6, which float32 can tell apart, got {self.decimals}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(Checked(model), RoundedOutput(self.decimals)))


@dataclass(frozen=True)
class LabelsOnly:
    """Publish the top class and no probability (Tramèr et al., 2016, arXiv:1609.02943, section 6).

    Call contract: docs/defenses.md, "Output defense".
    """

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(Checked(model), LabelOutput()))
