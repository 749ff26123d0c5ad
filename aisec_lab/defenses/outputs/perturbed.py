"""Saying something else: softer probabilities, a deceptive curve, or noise."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.core import RowNoise
from aisec_lab.data import Splits
from aisec_lab.defenses.outputs.modified import ModifiedOutput
from aisec_lab.models import in_mode_of
from aisec_lab.models.asked import Checked
from aisec_lab.models.layers import logarithms


class Tempering(nn.Module):
    """Probabilities at a temperature."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K)."""
        check_not_probabilities(logits)
        return (logits / self.temperature).log_softmax(1)


class ReverseSigmoidModel(nn.Module):
    """Probabilities less a sigmoid of their own log-odds."""

    differentiable: ClassVar[bool] = False  # near 0 and 1 the curve falls: its gradient points the wrong way

    def __init__(self, beta: float, gamma: float) -> None:
        super().__init__()
        self.beta, self.gamma = beta, gamma

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K)."""
        check_not_probabilities(logits)
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        others = logits[:, None].masked_fill(own, -torch.inf).logsumexp(2)  # of all other classes, for each class
        lie = self.beta * ((self.gamma * (logits - others)).sigmoid() - 0.5)
        bent = (logits.softmax(1) - lie).clamp(min=0)
        return logarithms(bent / bent.sum(1, keepdim=True))


class NoisyOutput(nn.Module):
    """Log-probabilities with noise that belongs to the query."""

    differentiable: ClassVar[bool] = False  # where two classes change places, their gradients do too

    def __init__(self, scale: float, keep: bool, seed: int) -> None:
        super().__init__()
        self.scale, self.keep, self.seed = scale, keep, seed

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K) on inputs (N, *input)."""
        noise = RowNoise(x, torch.Generator().manual_seed(self.seed)).normal(tuple(logits.shape[1:]), 0)
        noisy = logits + self.scale * noise.to(logits.dtype)
        if self.keep:
            winner, first = logits.argmax(1, keepdim=True), noisy.argmax(1, keepdim=True)
            highest, other = noisy.gather(1, first), noisy.gather(1, winner)
            noisy = noisy.scatter(1, first, other).scatter(1, winner, highest)
        return noisy.log_softmax(1)


@dataclass(frozen=True)
class TemperatureScaling:
    """Publish softmax(z / temperature); above 1 it says more of the lesser classes. Called as `Undefended`."""

    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(Checked(model), Tempering(self.temperature)))


@dataclass(frozen=True)
class ReverseSigmoid:
    """The reverse sigmoid (Lee et al., 2018, arXiv:1806.00054, eq. 3-4). Called as `Undefended`.

    y - beta (sigmoid(gamma log(y / (1 - y))) - 1/2), what is negative set to 0, over its sum. Where beta and gamma are
    at most 1, and not both about 1, where all classes tie, a winner of more than 1/2 stays the winner; one of less can
    lose to a class of almost nothing.

    Args:
        beta: size of the lie.
        gamma: how steep it is; below 1 the curve is steepest near 0 and 1.
    """

    beta: float = 1.0
    gamma: float = 0.2

    def __post_init__(self) -> None:
        if not (self.beta > 0 and self.gamma > 0):
            raise ValueError(f"beta and gamma must be positive, got {self.beta} and {self.gamma}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(Checked(model), ReverseSigmoidModel(self.beta, self.gamma)))


@dataclass(frozen=True)
class OutputNoise:
    """Normal noise on log-probabilities, the same whenever the same input is asked. Called as `Undefended`.

    Asking again tells nothing more. Asking about inputs nearby does: their noise is another, and averages out.

    Args:
        scale: standard deviation, in nats.
        keep: the winner stays: where noise has another one, the two change places.
        seed: with the input it fixes the noise; who knows it takes the noise off.
    """

    scale: float = 1.0
    keep: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}: for no noise use Undefended")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return ModifiedOutput(model, NoisyOutput(self.scale, self.keep, self.seed))
