"""Simulated mechanisms to audit: a correct one, and broken ones. Each simulates many runs at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.privacy.accounting import SampledGaussian


@dataclass(frozen=True)
class CorrectMechanism:
    """An `Implementation` that simulates the Poisson-sampled Gaussian mechanism as claimed.

    Args:
        claimed: the mechanism as it is accounted for.
    """

    claimed: SampledGaussian

    def __call__(self, included: bool, runs: int, *, generator: torch.Generator) -> Tensor:
        sums = self.noise() * torch.randn(runs, self.claimed.steps, generator=generator)
        return sums + self.gradient_norm() * self.batches(runs, generator) if included else sums

    def noise(self) -> float:
        """The standard deviation of the noise, in units of the clipping norm."""
        return self.claimed.sigma

    def gradient_norm(self) -> float:
        """The norm of the canary's gradient after clipping, in units of the clipping norm."""
        return 1.0

    def batches(self, runs: int, generator: torch.Generator) -> Tensor:
        """In which batches the canary is, (runs, steps), bool."""
        return torch.rand(runs, self.claimed.steps, generator=generator) < self.claimed.q


class HalfNoise(CorrectMechanism):
    """A broken mechanism with half the claimed noise.

    Args:
        claimed: the mechanism as it is accounted for.
    """

    def noise(self) -> float:
        return self.claimed.sigma / 2


class NoClipping(CorrectMechanism):
    """A broken mechanism without clipping: the canary's gradient is five times the clipping norm.

    Args:
        claimed: the mechanism as it is accounted for.
    """

    def gradient_norm(self) -> float:
        return 5.0


class ShuffledMechanism(CorrectMechanism):
    """A broken mechanism that shuffles: each row is in one batch per epoch of 1 / q steps, but Poisson is claimed.

    Args:
        claimed: the mechanism as it is accounted for; its steps are whole epochs.
    """

    def batches(self, runs: int, generator: torch.Generator) -> Tensor:
        steps_per_epoch = round(1 / self.claimed.q)
        epochs = self.claimed.steps // steps_per_epoch
        position = torch.randint(steps_per_epoch, (runs, epochs, 1), generator=generator)
        return torch.zeros(runs, epochs, steps_per_epoch, dtype=torch.bool).scatter(2, position, True).flatten(1)
