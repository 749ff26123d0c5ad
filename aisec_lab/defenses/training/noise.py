"""Objectives for base classifiers of randomised smoothing. Call contract: docs/defenses.md, "Objective"."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks import PGD
from aisec_lab.core import RowNoise
from aisec_lab.defenses.certification.smoothing import check_noise, log_mean_probability, noisy_logits
from aisec_lab.models import frozen


@dataclass(frozen=True)
class GaussianNoise:
    """Cross-entropy under Gaussian noise, one copy a row (Cohen et al., 2019, arXiv:1902.02918, section 3.3).

    Call contract: docs/defenses.md, "Objective"; the noise, keyed by row, draws from the generator. Noisy inputs are
    not clipped to [0, 1], because those of the smoothed classifier are not.

    Args:
        sigma: standard deviation of the noise, in units of the [0, 1] input; positive.
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        check_noise(self.sigma)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        noise = RowNoise(x, generator).normal(x.shape[1:], 0)
        return F.cross_entropy(model(x + self.sigma * noise), y, reduction="none")


class SoftSmoothed(nn.Module):
    """The soft smoothed classifier of a batch, its noise the same in every pass (Salman et al., 2019, eq. 6).

    Args:
        model: base classifier.
        noise: (N, samples, *input), in units of the input.
    """

    def __init__(self, model: nn.Module, noise: Tensor) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, x: Tensor) -> Tensor:
        """Log mean probabilities (N, K) of N inputs, in the order of the noise."""
        return log_mean_probability(noisy_logits(self.model, x, self.noise))


@dataclass(frozen=True)
class SmoothAdv:
    """Adversarial training of the smoothed classifier (Salman et al., 2019, arXiv:1906.04584, section 2.2).

    The attack ascends the loss of the soft smoothed classifier (eq. 6) under noise that is drawn once a batch. The loss
    is the cross-entropy under the same noise, averaged over its samples. Salman et al. raise the attack's radius over
    the first epochs; here it is constant. Call contract: docs/defenses.md, "Objective"; noise and attack draw from the
    generator.

    Args:
        attack: the inner maximisation; it never stops early.
        sigma: standard deviation of the noise, in units of the [0, 1] input; positive.
        samples: noise samples for each row, at least 1.
    """

    attack: PGD
    sigma: float = 0.25
    samples: int = 2

    def __post_init__(self) -> None:
        check_noise(self.sigma, samples=self.samples)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        noise = self.sigma * RowNoise(x, generator).normal((self.samples, *x.shape[1:]), 0)
        inner = replace(self.attack, early_stop=False)  # so that no row leaves the batch, and each keeps its noise
        with frozen(model):
            x_adv = inner(SoftSmoothed(model, noise).eval(), x, y, generator=generator)
        logits = noisy_logits(model, x_adv, noise)
        losses = F.cross_entropy(logits.flatten(0, 1), y.repeat_interleave(self.samples), reduction="none")
        return losses.view(-1, self.samples).mean(1)
