"""What a privacy promise says of reconstruction: how often the best guess at a training row can be right at most."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from aisec_lab.attacks.inference.informed import subsampled_log_ratio
from aisec_lab.core.binomial import lower_bound, upper_bound
from aisec_lab.privacy.accounting import SampledGaussian, delta_profile

LEAST_EPSILON, POINTS = -6.0, 400  # the profile is read from here to log(1 / kappa); any grid gives a bound
ROWS = 1 << 22  # draws held at once


class Estimate(NamedTuple):
    """A rate in [0, 1] and its interval."""

    value: float
    low: float
    high: float


def success_by_epsilon(epsilon: float, delta: float, kappa: float) -> float:
    """The most that an (epsilon, delta) promise leaves to any reconstruction: e^epsilon kappa + delta, at most 1.

    Balle, Cherubin & Hayes (2022, arXiv:2201.04845) for delta = 0, and the same argument with delta.

    Args:
        epsilon, delta: the promise, for neighbours by add/remove.
        kappa: base rate in (0, 1], how often the best guess without the model is right: 1 / M for M equally
            likely candidates.
    """
    _check(kappa)
    return min(1.0, math.exp(min(epsilon, 700.0)) * kappa + delta)


def success_bound(mechanisms: Sequence[SampledGaussian], kappa: float) -> float:
    """The most that training leaves to any reconstruction, whatever the adversary knows of the other rows.

    The blow-up function of Hayes et al. (2023, arXiv:2302.07225, section 3): sup P(E) over events E with Q(E) <= kappa,
    where P and Q are what is seen with the row and without. By Neyman and Pearson it is the least
    e^epsilon kappa + delta(epsilon) over the whole profile, which the accountant bounds from above (PLD).

    Args:
        mechanisms: all steps that used the row.
        kappa: base rate, as in `success_by_epsilon`.

    Returns:
        A bound in [kappa, 1], tight up to the accountant's grid where kappa is small; with sampling and a kappa near 1
        it is loose, since the accountant's profile covers both directions of add/remove.
    """
    _check(kappa)
    epsilons = np.append(np.linspace(LEAST_EPSILON, math.log(1 / kappa), POINTS), 0)
    bounds = np.exp(epsilons) * kappa + delta_profile(mechanisms, epsilons)
    return float(np.clip(bounds.min(), kappa, 1))


def success_without_sampling(sigma: float, steps: int, kappa: float) -> float:
    """The same where every row is in every batch, in closed form: Phi(Phi^-1(kappa) + sqrt(steps) / sigma).

    Args:
        sigma: noise multiplier, positive.
        steps: at least 0.
        kappa: base rate.
    """
    _check(kappa)
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}: without noise every reconstruction can be right")
    ends = torch.special.ndtri(torch.tensor(kappa, dtype=torch.float64)) + math.sqrt(steps) / sigma
    return float(torch.special.ndtr(ends))


def estimated_success(
    mechanisms: Sequence[SampledGaussian], kappa: float, *, draws: int = 50_000, generator: torch.Generator
) -> Estimate:
    """The same by simulation, without an accountant (after Hayes et al., 2023, section 3.1 and algorithm 1).

    Likelihood ratios of what is seen with the row, N(coins, sigma^2), and without, N(0, sigma^2), are drawn from both;
    those from the second say which event has kappa, those from the first how likely it is with the row. The
    authors weigh the second sample instead, which needs no first but is far noisier where kappa is small. Where
    ratios are equal, as all are without a step, a share of them is in the event, and the interval allows for any share.

    Args:
        mechanisms: all steps that used the row, each with noise.
        kappa: base rate.
        draws: of either kind; about 100 / kappa at least.
        generator: source of noise and coins.

    Returns:
        The rate and an interval that covers it with at least 95 %, for the event's place and its rate together.

    Raises:
        ValueError: too few draws for an event of kappa, or a mechanism without noise.
    """
    _check(kappa)
    if draws * kappa < 20:
        raise ValueError(f"{draws} draws see an event of {kappa:g} too rarely: ask for {math.ceil(100 / kappa)}")
    if any(each.sigma == 0 for each in mechanisms):
        raise ValueError("without noise there is nothing to simulate: every reconstruction can be right")
    without = _log_ratios(mechanisms, draws, False, generator).sort(descending=True).values
    present = _log_ratios(mechanisms, draws, True, generator)

    def above(rank: int, tied: float = 0.0) -> float:
        """How often, with the row, the ratio passes all but so many of those without; equal ones count as `tied`."""
        at = without[rank] if rank < draws else without.new_tensor(-math.inf)
        return int((present > at).sum()) + tied * int((present == at).sum())

    rank = min(int(draws * kappa), draws - 1)
    equal = without == without[rank]
    tied = (draws * kappa - int((without > without[rank]).sum())) / int(equal.sum())  # the event's share of them
    least, most = map(int, binom.ppf([0.0125, 0.9875], draws, kappa))  # how many of those without lie in the event
    low, high = above(max(least - 1, 0)), above(most, 1.0)
    return Estimate(
        above(rank, tied) / draws, float(lower_bound(low, draws, 0.0125)), float(upper_bound(high, draws, 0.0125))
    )


def _log_ratios(mechanisms: Sequence[SampledGaussian], draws: int, present: bool, generator: torch.Generator) -> Tensor:
    """Logarithms (draws,) of dP/dQ at what is seen with the row, or without it."""
    total = torch.zeros(draws, dtype=torch.float64)
    for each in mechanisms:
        together = max(1, ROWS // draws)
        for first in range(0, each.steps, together):
            shape = (min(together, each.steps - first), draws)
            seen = each.sigma * torch.randn(shape, dtype=torch.float64, generator=generator)
            if present:
                seen += torch.rand(shape, dtype=torch.float64, generator=generator) < each.q
            total += subsampled_log_ratio(seen / each.sigma**2 - 0.5 / each.sigma**2, each.q).sum(0)
    return total


def _check(kappa: float) -> None:
    if not 0 < kappa <= 1:
        raise ValueError(f"kappa must lie in (0, 1], got {kappa}: 1 / M for M equally likely candidates")
