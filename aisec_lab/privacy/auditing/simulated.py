"""Mechanisms to hunt: one that does what it claims, and broken ones. Each is simulated, many runs at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.privacy.accounting import SampledGaussian


@dataclass(frozen=True)
class CorrectMechanism:
    """The noisy sums of a Poisson-sampled Gaussian mechanism: (runs, steps), in clipping norms."""

    claimed: SampledGaussian

    def __call__(self, included: bool, runs: int, *, generator: torch.Generator) -> Tensor:
        sums = self.noise() * torch.randn(runs, self.claimed.steps, generator=generator)
        return sums + self.length() * self.batches(runs, generator) if included else sums

    def noise(self) -> float:
        """Its standard deviation."""
        return self.claimed.sigma

    def length(self) -> float:
        """Of the canary's gradient."""
        return 1.0

    def batches(self, runs: int, generator: torch.Generator) -> Tensor:
        """In which steps the canary is, (runs, steps), bool."""
        return torch.rand(runs, self.claimed.steps, generator=generator) < self.claimed.q


class HalfNoise(CorrectMechanism):
    """Half of the noise that is claimed."""

    def noise(self) -> float:
        return self.claimed.sigma / 2


class NoClipping(CorrectMechanism):
    """The canary's gradient has five times the norm to which it should have been cut."""

    def length(self) -> float:
        return 5.0


class ShuffledMechanism(CorrectMechanism):
    """Each row is in one batch of each epoch of 1 / q steps, while Poisson sampling is claimed."""

    def batches(self, runs: int, generator: torch.Generator) -> Tensor:
        an_epoch = round(1 / self.claimed.q)
        epochs = self.claimed.steps // an_epoch
        places = torch.randint(an_epoch, (runs, epochs, 1), generator=generator)
        return torch.zeros(runs, epochs, an_epoch, dtype=torch.bool).scatter(2, places, True).flatten(1)
