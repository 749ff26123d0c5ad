"""Randomised smoothing: classify by the class that is most probable under Gaussian noise (arXiv:1902.02918)."""

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
    """Check the settings of a smoothed classifier.

    Args:
        sigma: standard deviation of the noise; positive and finite.
        counts: numbers of samples by name; integers of at least 1.

    Raises:
        ValueError: one of them out of range.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma, the noise in units of the [0, 1] input, must be positive, got {sigma}")
    for name, count in counts.items():
        if not (isinstance(count, Integral) and count >= 1):
            raise ValueError(f"{name} counts noisy copies of a row and must be an integer of at least 1, got {count}")


def noisy_logits(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """The base classifier's logits at noisy inputs, which are not clipped to [0, 1].

    Args:
        model: base classifier.
        x: inputs (N, *input).
        noise: (N, samples, *input), in units of the input.

    Returns:
        Logits (N, samples, K).
    """
    logits: Tensor = model((x[:, None] + noise).flatten(0, 1))
    return logits.view(*noise.shape[:2], -1)


def log_mean_probability(logits: Tensor) -> Tensor:
    """The logarithm of the mean probability over samples.

    Args:
        logits: (N, samples, K).

    Returns:
        (N, K).
    """
    return logits.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])


class Smoothed(nn.Module):
    """The smoothed classifier g(x) = argmax_c P(f(x + N(0, sigma^2 I)) = c) by Monte Carlo (eq. 1).

    Its scores are the logarithms of (count_c + mean probability of c) / (samples + 1), where count_c is the number of
    samples that f puts into class c. So the top class is that of the counts, which is what `certify` bounds, and no
    score is infinite. Counts have no gradient: backward passes use that of the logarithm of the mean probability
    instead, which Salman et al. (2019, arXiv:1906.04584, eq. 6) ascend. So every gradient attack on this module
    averages over the noise. An attack that stops at its first success may have met a lucky draw: use
    `PGD(..., early_stop=False)`, and `predict` to evaluate what it returns.

    Args:
        model: base classifier f.
        sigma: standard deviation of the noise, in units of the [0, 1] input.
        samples: noise samples for each row and pass.

    Attributes:
        generator: source of the noise, which is keyed by row; bound by `seeded`.

    Raises:
        ValueError: sigma or samples out of range; on a call, no generator is bound.
    """

    generator: torch.Generator | None = None

    def __init__(self, model: nn.Module, sigma: float, samples: int = 100) -> None:
        super().__init__()
        check_noise(sigma, samples=samples)
        self.model, self.sigma, self.samples = model, sigma, samples

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) of inputs (N, *input)."""
        if self.generator is None:
            raise ValueError(
                "a smoothed model draws noise and no generator is bound: use `with seeded(model, generator):`"
            )
        noise = self.sigma * RowNoise(x, self.generator).normal((self.samples, *x.shape[1:]), 0)
        logits = noisy_logits(self.model, x, noise)
        soft = log_mean_probability(logits).clamp(min=math.log(TINY))
        return straight_through(logits, soft)


def straight_through(logits: Tensor, soft: Tensor) -> Tensor:
    """Scores of the counts, with the gradient of the mean probability.

    Args:
        logits: of each sample, (N, samples, K).
        soft: logarithms of the mean probabilities, (N, K), finite.

    Returns:
        log((counts + exp(soft)) / (samples + 1)), shape (N, K); its gradient is that of `soft`.
    """
    counts = F.one_hot(logits.argmax(2), logits.shape[2]).sum(1)  # samples in each class
    scores = ((counts + soft.exp()) / (logits.shape[1] + 1)).log()
    return scores.detach() + soft - soft.detach()


@dataclass(frozen=True)
class Smoothing:
    """Randomised smoothing as a defense (Cohen et al., 2019, arXiv:1902.02918). Call contract: docs/defenses.md.

    The call returns `Smoothed`. Train the base classifier with `GaussianNoise` or `SmoothAdv` at the same sigma.

    Args:
        sigma: standard deviation of the noise, in units of the [0, 1] input; positive.
        samples: noise samples for each row and pass, at least 1.
    """

    sigma: float = 0.25
    samples: int = 100

    def __post_init__(self) -> None:
        check_noise(self.sigma, samples=self.samples)

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, Smoothed(model, self.sigma, self.samples))
