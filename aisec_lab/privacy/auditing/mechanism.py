"""The mechanism audit: a test of many runs of an implementation against its claimed privacy profile."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aisec_lab.core import binomial
from aisec_lab.privacy.accounting import SampledGaussian, delta_profile

GRID = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


class Implementation(Protocol):
    """An implementation of a mechanism that can be run many times with a canary and without it."""

    def __call__(self, included: bool, runs: int, *, generator: torch.Generator) -> Tensor:
        """Run the implementation.

        Args:
            included: whether the canary is in the training set.
            runs: number of independent runs.
            generator: source of all randomness.

        Returns:
            The noisy sum of clipped gradients at each step, (runs, steps), floating point, projected on the canary's
            gradient and in units of the clipping norm. Other rows contribute 0. The canary contributes 1 at each step
            whose batch it is in, or 0 where it is not `included`.
        """
        ...


@dataclass(frozen=True, eq=False)
class AuditResult:
    """The result of a mechanism audit.

    Args:
        epsilons: grid of the privacy profile (G,).
        claimed: claimed deltas at these epsilons (G,).
        measured: estimated deltas (noises, 2, G): for each likelihood ratio, and for both directions of add/remove.
        low: lower bounds on `measured`, of its shape, which hold together at the audit's level.
    """

    epsilons: NDArray[np.float64]
    claimed: NDArray[np.float64]
    measured: NDArray[np.float64]
    low: NDArray[np.float64]

    @property
    def rejected(self) -> bool:
        """Whether the claim is rejected: a lower bound exceeds the claimed delta."""
        return self.margin > 0

    @property
    def margin(self) -> float:
        """The largest difference of a lower bound and the claimed delta; negative where the claim is not rejected."""
        return float((self.low - self.claimed).max())

    @property
    def epsilon(self) -> float:
        """The epsilon at which this difference is largest."""
        return float(self.epsilons[(self.low - self.claimed).max((0, 1)).argmax()])


@dataclass(frozen=True)
class MechanismAudit:
    """Test whether a mechanism is as private as claimed: all steps together, at many epsilons.

    A correct claim has P(A) <= e^epsilon Q(A) + delta(epsilon) for any event A, where P and Q are the distributions of
    the outputs with and without a canary, in both orders. The events are thresholds on the log-likelihood ratio of the
    claimed mechanism, by Neyman and Pearson the strongest test of it. A mechanism with less noise can pass this test if
    the canary is rarely in a batch, so the ratio of one with half the noise is tested too. No choice depends on the
    runs: each Clopper-Pearson bound is valid, and Bonferroni makes all hold together.

    The whole profile is needed: shuffled batches that were accounted for as Poisson samples violate it at small
    epsilons, and not at that of a small delta (Chua et al., 2024, arXiv:2403.17673, compare the two).

    Args:
        claimed: the mechanism as it was accounted for, with noise.
        runs: with the canary, and as many without; at least 1.
        level: in (0, 1); the largest probability with which a correct mechanism is rejected.
        epsilons: grid of the profile, finite and at least 0.
        noises: noise of the tested likelihood ratios over the claimed noise, positive.

    Raises:
        ValueError: a field out of its range.
    """

    claimed: SampledGaussian
    runs: int = 5000
    level: float = 0.05
    epsilons: tuple[float, ...] = GRID
    noises: tuple[float, ...] = (1.0, 0.5)

    def __post_init__(self) -> None:
        if self.runs < 1 or not 0 < self.level < 1:
            raise ValueError(f"runs must be positive and level lie in (0, 1): {self}")
        if not self.epsilons or not all(0 <= epsilon < math.inf for epsilon in self.epsilons):
            raise ValueError(
                f"epsilons must be some finite numbers, none negative: {self}: both directions are looked at"
            )
        if not self.noises or not all(noise > 0 for noise in self.noises):
            raise ValueError(f"noises must be some positive multiples of the claimed noise: {self}: 1.0 is the claim")
        if not self.claimed.sigma > 0:
            raise ValueError(f"a mechanism without noise claims nothing that could be tested: {self.claimed}")

    def __call__(self, implementation: Implementation, *, generator: torch.Generator) -> AuditResult:
        """Run and test an implementation.

        Args:
            implementation: the implementation to test.
            generator: source of all its randomness.

        Returns:
            The decision, with the claimed and the measured profile.

        Raises:
            ValueError: sums that are not finite or not (runs, steps).
        """
        inside, outside = (self._sums(implementation, included, generator) for included in (True, False))
        epsilons = np.array(self.epsilons)
        counts = []  # (noises, directions, rates, G)
        for noise in self.noises:
            tested = replace(self.claimed, sigma=noise * self.claimed.sigma)
            present, absent = log_likelihood_ratio(inside, tested), log_likelihood_ratio(outside, tested)
            counts.append(
                [[above(ratios, epsilons) for ratios in pair] for pair in ((present, absent), (-absent, -present))]
            )
        hits, false = np.moveaxis(np.array(counts), 2, 0)
        alpha = self.level / np.size(counts)
        low, high = binomial.lower_bound(hits, self.runs, alpha), binomial.upper_bound(false, self.runs, alpha)
        return AuditResult(
            epsilons=epsilons,
            claimed=np.array(profile(self.claimed, self.epsilons)),
            measured=(hits - np.exp(epsilons) * false) / self.runs,
            low=low - np.exp(epsilons) * high,
        )

    def _sums(self, implementation: Implementation, included: bool, generator: torch.Generator) -> Tensor:
        sums = implementation(included, self.runs, generator=generator)
        if sums.shape != (self.runs, self.claimed.steps) or not sums.isfinite().all():
            raise ValueError(
                f"an implementation gives finite sums (runs, steps) = {(self.runs, self.claimed.steps)}, "
                f"got {tuple(sums.shape)}, {int((~sums.isfinite()).sum())} of them not finite"
            )
        return sums


def log_likelihood_ratio(sums: Tensor, claimed: SampledGaussian) -> Tensor:
    """The log-likelihood ratio log P/Q of each run under a claimed mechanism.

    A step with sum s adds log((1 - q) + q exp((2 s - 1) / (2 sigma^2))).

    Args:
        sums: noisy sums (runs, steps), as an `Implementation` gives them.
        claimed: sampling rate and noise multiplier.

    Returns:
        Ratios (runs,); positive where the sums are more likely with the canary than without it.
    """
    gain = (2 * sums - 1) / (2 * claimed.sigma**2)
    if claimed.q == 1:
        return gain.sum(1)
    odds = math.log(claimed.q) - math.log1p(-claimed.q)
    return torch.nn.functional.softplus(gain + odds).sum(1) + claimed.steps * math.log1p(-claimed.q)


def above(ratios: Tensor, epsilons: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of ratios (runs,) above each epsilon (G,): shape (G,)."""
    ordered = np.sort(ratios.cpu().numpy())
    return len(ordered) - np.searchsorted(ordered, epsilons, side="right")


@lru_cache
def profile(claimed: SampledGaussian, epsilons: tuple[float, ...]) -> tuple[float, ...]:
    """The claimed deltas at epsilons; cached, since the accountant takes longer than the runs."""
    return tuple(delta_profile([claimed], epsilons).tolist())
