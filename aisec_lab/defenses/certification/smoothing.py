"""Randomised smoothing: the class that wins most often under Gaussian noise, with a radius in which it must win."""

import math
from dataclasses import dataclass
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.core import RowNoise
from aisec_lab.data import Splits
from aisec_lab.models import in_mode_of

TINY = 1e-30  # below it a mean probability counts as this, so that its logarithm is a number


def check_noise(sigma: float, **counts: int) -> None:
    """Refuse, with a ValueError, a noise level that is not positive and counts below 1."""
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma, the noise in units of the [0, 1] input, must be positive, got {sigma}")
    for name, count in counts.items():
        if not (isinstance(count, Integral) and count >= 1):
            raise ValueError(f"{name} counts noisy copies of a row and must be an integer of at least 1, got {count}")


def noisy_logits(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """The base classifier's logits (N, copies, K) of x (N, *input) under noise (N, copies, *input), not clipped."""
    logits: Tensor = model((x[:, None] + noise).flatten(0, 1))
    return logits.view(*noise.shape[:2], -1)


def log_mean_probability(logits: Tensor) -> Tensor:
    """The logarithm of the mean probability over copies, of logits (N, copies, K): shape (N, K)."""
    return logits.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])


class Smoothed(nn.Module):
    """The smoothed classifier g(x) = argmax_c P(f(x + N(0, sigma^2)) = c) by Monte Carlo (arXiv:1902.02918, eq. 1).

    The scores are logarithms of shares of the votes, one more vote being divided as the mean probabilities are, so
    that the winner is the winner of the votes (what `certify` speaks of) and no score is infinite. Votes have no
    gradient: that of the mean probability's logarithm goes back in its place, which is what Salman et al. (2019,
    arXiv:1906.04584, eq. 6) ascend. So every gradient attack on this module averages over the noise. One that stops at
    its first success stops at a lucky draw: `PGD(..., early_stop=False)`, judged by `predict`, goes to the end.

    Args:
        model: the base classifier f.
        sigma: standard deviation of the noise, in units of the [0, 1] input.
        samples: noisy copies of a row in one pass.

    Attributes:
        generator: source of the noise, keyed by row; bound by `seeded`.
    """

    generator: torch.Generator | None = None

    def __init__(self, model: nn.Module, sigma: float, samples: int = 100) -> None:
        super().__init__()
        check_noise(sigma, samples=samples)
        self.model, self.sigma, self.samples = model, sigma, samples

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of x (N, *input); ValueError where no generator is bound."""
        if self.generator is None:
            raise ValueError(
                "a smoothed model draws noise and no generator is bound: use `with seeded(model, generator):`"
            )
        noise = self.sigma * RowNoise(x, self.generator).normal((self.samples, *x.shape[1:]), 0)
        logits = noisy_logits(self.model, x, noise)
        soft = log_mean_probability(logits).clamp(min=math.log(TINY))
        votes = F.one_hot(logits.argmax(2), logits.shape[2]).sum(1)
        shares = ((votes + soft.exp()) / (self.samples + 1)).log()
        return shares.detach() + soft - soft.detach()


@dataclass(frozen=True)
class Smoothing:
    """Randomised smoothing as a defense (Cohen et al., 2019, arXiv:1902.02918).

    Args of the call:
        model: the base classifier, best trained with `GaussianNoise` or `SmoothAdv` at the same sigma.
        data: unused.

    Returns:
        `Smoothed`, in the mode of `model`.
    """

    sigma: float = 0.25
    samples: int = 100

    def __post_init__(self) -> None:
        check_noise(self.sigma, samples=self.samples)

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, Smoothed(model, self.sigma, self.samples))
