"""The mechanisms that accountants compose: sampled Gaussian steps, and guarantees that others state."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

LEAST_SIGMA = 1e-6  # with less noise epsilon would be above 1e11, and float64 overflows on the way
MOST_SIGMA = 1e9  # more noise counts as this much


@dataclass(frozen=True)
class SampledGaussian:
    """Steps of the Poisson-subsampled Gaussian mechanism (Abadi et al., 2016, arXiv:1607.00133).

    Neighbouring datasets differ by one row that is in only one of them (add/remove).

    Args:
        q: sampling rate, in (0, 1]: the probability with which each row, independently, is in a step's batch.
        sigma: noise multiplier, the noise's standard deviation over the clipping norm, at least 0; below 1e-6 nothing
            is guaranteed.
        steps: at least 0.

    Raises:
        ValueError: an argument out of its range.
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
        object.__setattr__(self, "steps", int(self.steps))  # an int can be written as JSON, a NumPy integer cannot

    @property
    def noisy(self) -> bool:
        """Whether there is enough noise for any guarantee."""
        return self.sigma >= LEAST_SIGMA


@dataclass(frozen=True)
class PrivacyStatement:
    """An (epsilon, delta) guarantee of another mechanism for add/remove neighbours, such as a release by OpenDP.

    Args:
        epsilon: in [0, 100].
        delta: in [0, 1).

    Raises:
        ValueError: an argument out of its range.
    """

    epsilon: float
    delta: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.epsilon <= 100 and 0 <= self.delta < 1):
            raise ValueError(
                f"a statement has epsilon in [0, 100] and delta in [0, 1), got {self}: more guarantees nothing"
            )


Mechanism = SampledGaussian | PrivacyStatement


def merged(mechanisms: Iterable[Mechanism]) -> tuple[list[SampledGaussian], list[PrivacyStatement]]:
    """Sort mechanisms by kind, and add up the steps of equal sampled Gaussians.

    Args:
        mechanisms: in any order.

    Returns:
        Sampled Gaussians, each (q, sigma) once and with at least one step, and statements.
    """
    steps: dict[tuple[float, float], int] = {}
    statements = []
    for each in mechanisms:
        if isinstance(each, PrivacyStatement):
            statements.append(each)
        elif each.steps:
            steps[each.q, each.sigma] = steps.get((each.q, each.sigma), 0) + each.steps
    return [SampledGaussian(q, min(sigma, MOST_SIGMA), count) for (q, sigma), count in steps.items()], statements
