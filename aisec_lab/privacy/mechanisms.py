"""What is accounted for: steps of a sampled Gaussian mechanism, and promises of others."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

LEAST_SIGMA = 1e-6  # at less noise an epsilon would be above 1e11, and float64 cannot hold what leads to it
MOST_SIGMA = 1e9  # more noise counts as this much


@dataclass(frozen=True)
class SampledGaussian:
    """Steps of the Poisson-subsampled Gaussian mechanism (Abadi et al., 2016, arXiv:1607.00133).

    Neighbouring datasets differ by one row that is in only one of them (add/remove).

    Args:
        q: probability with which each row, independently of all others, is in a step's batch; in (0, 1].
        sigma: noise multiplier, the noise's standard deviation over the clipping norm; below 1e-6 it promises nothing.
        steps: how many.
    """

    q: float
    sigma: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.q <= 1:
            raise ValueError(f"q must lie in (0, 1], got {self.q}: it is the expected batch over all rows")
        if not (self.sigma >= 0 and math.isfinite(self.sigma)):
            raise ValueError(f"sigma must be finite and not negative, got {self.sigma}: it counts in clipping norms")
        if not (isinstance(self.steps, int | np.integer) and self.steps >= 0):
            raise ValueError(f"steps must be an integer that is not negative, got {self.steps!r}")
        object.__setattr__(self, "steps", int(self.steps))  # numpy's, too, is then written as JSON

    @property
    def noisy(self) -> bool:
        """Whether anything is promised at all."""
        return self.sigma >= LEAST_SIGMA


@dataclass(frozen=True)
class PrivacyStatement:
    """A promise that somebody else made for the same neighbours, such as a release of OpenDP's.

    Args:
        epsilon: in [0, 100].
        delta: in [0, 1).
    """

    epsilon: float
    delta: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.epsilon <= 100 and 0 <= self.delta < 1):
            raise ValueError(
                f"a statement has epsilon in [0, 100] and delta in [0, 1), got {self}: above is no promise"
            )


Mechanism = SampledGaussian | PrivacyStatement


def merged(mechanisms: Iterable[Mechanism]) -> tuple[list[SampledGaussian], list[PrivacyStatement]]:
    """Equal steps counted together, those that do nothing left out."""
    steps: dict[tuple[float, float], int] = {}
    statements = []
    for each in mechanisms:
        if isinstance(each, PrivacyStatement):
            statements.append(each)
        elif each.steps:
            steps[each.q, each.sigma] = steps.get((each.q, each.sigma), 0) + each.steps
    return [SampledGaussian(q, min(sigma, MOST_SIGMA), count) for (q, sigma), count in steps.items()], statements
