"""Output defenses that publish perturbed probabilities. Call contract: docs/defenses.md, "Output defense"."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.core import RowNoise
from aisec_lab.data import Splits
from aisec_lab.defenses.outputs.modified import ModifiedOutput
from aisec_lab.models import in_mode_of
from aisec_lab.models.checked import CheckedModel
from aisec_lab.models.layers import logarithms


class TemperatureOutput(nn.Module):
    """Divide logits by a temperature.

    Args:
        temperature: positive.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K)."""
        check_not_probabilities(logits)
        return (logits / self.temperature).log_softmax(1)


class ReverseSigmoidModel(nn.Module):
    """Subtract a sigmoid of its own log-odds from each probability, and renormalise.

    Args:
        beta: size of the perturbation; positive.
        gamma: slope of the sigmoid; positive.
    """

    differentiable: ClassVar[bool] = False  # the curve falls near 0 and 1, where its gradient points the wrong way

    def __init__(self, beta: float, gamma: float) -> None:
        super().__init__()
        self.beta, self.gamma = beta, gamma

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K)."""
        check_not_probabilities(logits)
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        others = logits[:, None].masked_fill(own, -torch.inf).logsumexp(2)  # of all other classes, for each class
        perturbation = self.beta * ((self.gamma * (logits - others)).sigmoid() - 0.5)
        published = (logits.softmax(1) - perturbation).clamp(min=0)
        return logarithms(published / published.sum(1, keepdim=True))


class NoisyOutput(nn.Module):
    """Add Gaussian noise to logits; the same input always gets the same noise.

    Args:
        scale: standard deviation, in nats; positive.
        keep: whether the top class stays the model's.
        seed: fixes the noise, together with the input.
    """

    differentiable: ClassVar[bool] = False  # where two classes swap values, their gradients swap too

    def __init__(self, scale: float, keep: bool, seed: int) -> None:
        super().__init__()
        self.scale, self.keep, self.seed = scale, keep, seed

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K) on inputs (N, *input)."""
        noise = RowNoise(x, torch.Generator().manual_seed(self.seed)).normal(tuple(logits.shape[1:]), 0)
        noisy = logits + self.scale * noise.to(logits.dtype)
        if self.keep:
            top, noisy_top = logits.argmax(1, keepdim=True), noisy.argmax(1, keepdim=True)
            highest, other = noisy.gather(1, noisy_top), noisy.gather(1, top)
            noisy = noisy.scatter(1, noisy_top, other).scatter(1, top, highest)
        return noisy.log_softmax(1)


@dataclass(frozen=True)
class TemperatureScaling:
    """Publish softmax(z / temperature) (Hinton et al., 2015, arXiv:1503.02531, eq. 1).

    Call contract: docs/defenses.md, "Output defense".

    Args:
        temperature: positive; above 1 it makes probabilities more even.
    """

    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(CheckedModel(model), TemperatureOutput(self.temperature)))


@dataclass(frozen=True)
class ReverseSigmoid:
    """The reverse sigmoid (Lee et al., 2018, arXiv:1806.00054, eq. 3-4).

    It publishes y - beta (sigmoid(gamma log(y / (1 - y))) - 1/2), clipped at 0 and divided by its sum. Where beta and
    gamma are at most 1 and not both about 1, a top class with probability above 1/2 stays the top class. One below
    1/2 can fall behind a class with almost no probability. With both about 1 all classes tie. Call contract:
    docs/defenses.md, "Output defense".

    Args:
        beta: size of the perturbation; positive.
        gamma: slope; positive. Below 1 the curve is steepest near 0 and 1.
    """

    beta: float = 1.0
    gamma: float = 0.2

    def __post_init__(self) -> None:
        if not (self.beta > 0 and self.gamma > 0):
            raise ValueError(f"beta and gamma must be positive, got {self.beta} and {self.gamma}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(CheckedModel(model), ReverseSigmoidModel(self.beta, self.gamma)))


@dataclass(frozen=True)
class OutputNoise:
    """Publish log-probabilities with Gaussian noise; repeated queries of an input get the same noise.

    So repeating a query reveals nothing more. Queries of nearby inputs do: their noise is independent and averages out.
    Call contract: docs/defenses.md, "Output defense".

    Args:
        scale: standard deviation, in nats; positive.
        keep: whether the model's top class stays on top: where the noise changes it, the two classes swap values.
        seed: fixes the noise, together with the input; keep it secret, because it allows to subtract the noise.
    """

    scale: float = 1.0
    keep: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}: for no noise use Undefended")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return ModifiedOutput(model, NoisyOutput(self.scale, self.keep, self.seed))
