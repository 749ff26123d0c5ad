"""The hunt for a broken mechanism: what many of its runs show, beside the whole profile that is claimed for it."""

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
    """What is suspected: something that can be run many times with a canary and without it."""

    def __call__(self, included: bool, runs: int, *, generator: torch.Generator) -> Tensor:
        """The noisy sum of clipped gradients at each step of independent runs, (runs, steps), floating point.

        The sums are seen along the canary's gradient, in units of the clipping norm: of all other rows they hold
        nothing, of the canary 1 at each step whose batch it is in, or 0 where it is not `included`.
        """
        ...


@dataclass(frozen=True, eq=False)
class AuditResult:
    """What a hunt has found.

    Args:
        epsilons: the points of the profile, (G,).
        claimed: the deltas that are claimed there, (G,).
        measured: those that the runs show, (noises, 2, G): each likelihood ratio's, with the canary against without
            it and the other way round.
        low: the lower bounds on `measured`, of its shape, which all hold together at the hunt's level.
    """

    epsilons: NDArray[np.float64]
    claimed: NDArray[np.float64]
    measured: NDArray[np.float64]
    low: NDArray[np.float64]

    @property
    def rejected(self) -> bool:
        """Whether a lower bound passes its claim."""
        return self.margin > 0

    @property
    def margin(self) -> float:
        """By how much delta a lower bound passes its claim at most; negative where none does."""
        return float((self.low - self.claimed).max())

    @property
    def epsilon(self) -> float:
        """Where it does so."""
        return float(self.epsilons[(self.low - self.claimed).max((0, 1)).argmax()])


@dataclass(frozen=True)
class MechanismAudit:
    """Is a mechanism as private as claimed? A test of all its steps together, at many epsilons.

    A mechanism that keeps to a claim has P(A) <= e^epsilon Q(A) + delta(epsilon) for any event A, with P its outputs
    with a canary and Q those without, and with the two exchanged. The events here are those that an attacker who
    knows the claim would choose: the log-likelihood ratio of the claimed mechanism is above epsilon (or below
    -epsilon). Against the mechanism as claimed no test is stronger. One with less noise can hide from it, where the
    canary is rarely in a batch and stands out there only because the noise is low: the likelihood ratio of a mechanism
    with half the noise is asked, too. Nothing is chosen after the runs, so that each rate's Clopper-Pearson bound
    holds; Bonferroni over rates, directions, epsilons and ratios makes all hold together.

    The whole profile matters: batches of shuffled rows that are accounted as Poisson samples show at small epsilon,
    where a row that is in a batch each epoch for certain is found more easily than one that may be in none, and not at
    the epsilon of a small delta (Chua et al., 2024, arXiv:2403.17673, compare the two). They show where the noise is
    small and the epochs are few.

    Args:
        claimed: what the accountant was told.
        runs: how many with the canary, and as many without.
        level: how often, at most, a correct mechanism is accused.
        epsilons: where the profile is looked at, not negative.
        noises: of the likelihood ratios, in units of the claimed noise.

    Args of the call:
        implementation: the mechanism under suspicion.
        generator: source of all its randomness.

    Returns:
        The verdict, with both profiles.

    Raises:
        ValueError: no run, a level outside (0, 1), epsilons that are negative or missing, noises that are not positive
            or missing, a claim without noise, sums of another shape or not finite.
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
        inside, outside = (self._sums(implementation, included, generator) for included in (True, False))
        epsilons = np.array(self.epsilons)
        counts = []  # (noises, directions, rates, G)
        for noise in self.noises:
            supposed = replace(self.claimed, sigma=noise * self.claimed.sigma)
            with_it, without = log_likelihood_ratio(inside, supposed), log_likelihood_ratio(outside, supposed)
            counts.append(
                [[above(ratios, epsilons) for ratios in pair] for pair in ((with_it, without), (-without, -with_it))]
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
    """The evidence for a canary in noisy sums (runs, steps): log of P over Q of the claimed mechanism, (runs,).

    A step adds log((1 - q) + q exp((2 s - 1) / (2 sigma^2))), with its sum s in units of the clipping norm.
    """
    gain = (2 * sums - 1) / (2 * claimed.sigma**2)
    if claimed.q == 1:
        return gain.sum(1)
    odds = math.log(claimed.q) - math.log1p(-claimed.q)
    return torch.nn.functional.softplus(gain + odds).sum(1) + claimed.steps * math.log1p(-claimed.q)


def above(ratios: Tensor, epsilons: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the ratios (runs,) are above each epsilon (G,), (G,)."""
    ordered = np.sort(ratios.cpu().numpy())
    return len(ordered) - np.searchsorted(ordered, epsilons, side="right")


@lru_cache
def profile(claimed: SampledGaussian, epsilons: tuple[float, ...]) -> tuple[float, ...]:
    """The claimed deltas; kept, since the accountant takes longer than the runs."""
    return tuple(delta_profile([claimed], epsilons).tolist())
