"""Upper bounds on reconstruction: how often any adversary can reconstruct a training row under a DP guarantee."""

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

LEAST_EPSILON, POINTS = -6.0, 400  # grid of epsilons, from here to log(1 / kappa); any grid gives a bound
CHUNK = 1 << 22  # numbers drawn at a time


class Estimate(NamedTuple):
    """A rate in [0, 1] and its interval [low, high]."""

    value: float
    low: float
    high: float


def success_by_epsilon(epsilon: float, delta: float, kappa: float) -> float:
    """The largest success rate of reconstruction under (epsilon, delta)-DP: e^epsilon kappa + delta, at most 1.

    Balle, Cherubin & Hayes (2022, arXiv:2201.04845) for delta = 0, and the same argument with delta.

    Args:
        epsilon, delta: the guarantee, for add/remove neighbours.
        kappa: base rate in (0, 1], the success rate of the best guess without the model: 1 / M for M equally likely
            candidates.

    Returns:
        An upper bound in [kappa, 1].

    Raises:
        ValueError: kappa out of its range.
    """
    _check(kappa)
    return min(1.0, math.exp(min(epsilon, 700.0)) * kappa + delta)


def success_bound(mechanisms: Sequence[SampledGaussian], kappa: float) -> float:
    """The largest success rate of reconstruction from private training, whatever the adversary knows of other rows.

    The blow-up function of Hayes et al. (2023, arXiv:2302.07225, section 3): sup P(E) over events E with Q(E) <= kappa,
    where P and Q are the distributions of the outputs with and without the row. By Neyman and Pearson it is the minimum
    of e^epsilon kappa + delta(epsilon) over the privacy profile, which the accountant bounds from above (PLD).

    Args:
        mechanisms: all steps that used the row.
        kappa: base rate in (0, 1], the success rate of the best guess without the model.

    Returns:
        An upper bound in [kappa, 1]. For small kappa it is tight up to the accountant's grid. With sampling and kappa
        near 1 it is loose, since the profile covers both directions of add/remove.

    Raises:
        ValueError: kappa out of its range.
    """
    _check(kappa)
    epsilons = np.append(np.linspace(LEAST_EPSILON, math.log(1 / kappa), POINTS), 0)
    bounds = np.exp(epsilons) * kappa + delta_profile(mechanisms, epsilons)
    return float(np.clip(bounds.min(), kappa, 1))


def success_without_sampling(sigma: float, steps: int, kappa: float) -> float:
    """The bound of `success_bound` for full batches, in closed form: Phi(Phi^-1(kappa) + sqrt(steps) / sigma).

    Args:
        sigma: noise multiplier, positive.
        steps: at least 0.
        kappa: base rate in (0, 1].

    Returns:
        The bound in [kappa, 1].

    Raises:
        ValueError: sigma or kappa out of its range.
    """
    _check(kappa)
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}: without noise every reconstruction can be right")
    ends = torch.special.ndtri(torch.tensor(kappa, dtype=torch.float64)) + math.sqrt(steps) / sigma
    return float(torch.special.ndtr(ends))


def estimated_success(
    mechanisms: Sequence[SampledGaussian], kappa: float, *, draws: int = 50_000, generator: torch.Generator
) -> Estimate:
    """Estimate `success_bound` by simulation, without an accountant (Hayes et al., 2023, section 3.1 and algorithm 1).

    We draw likelihood ratios of the outputs with the row, N(inclusion, sigma^2), and without it, N(0, sigma^2). Those
    without the row give the threshold of the event with probability kappa; those with the row give its probability. The
    authors reweight the sample without the row instead, which is far noisier for small kappa. Of equal ratios at the
    threshold, a share belongs to the event; the interval allows for any share.

    Args:
        mechanisms: all steps that used the row, each with noise.
        kappa: base rate in (0, 1].
        draws: with the row, and as many without it; at least 20 / kappa, better 100 / kappa.
        generator: source of noise and inclusion.

    Returns:
        The rate, and an interval that covers it with at least 95 %, for the threshold and the rate together.

    Raises:
        ValueError: too few draws, a mechanism without noise, or kappa out of its range.
    """
    _check(kappa)
    if draws * kappa < 20:
        raise ValueError(f"{draws} draws see an event of {kappa:g} too rarely: ask for {math.ceil(100 / kappa)}")
    if any(each.sigma == 0 for each in mechanisms):
        raise ValueError("without noise there is nothing to simulate: every reconstruction can be right")
    without = _log_ratios(mechanisms, draws, False, generator).sort(descending=True).values
    present = _log_ratios(mechanisms, draws, True, generator)

    def above(rank: int, tied: float = 0.0) -> float:
        """With the row, how many ratios exceed the one of this rank without it; equal ratios count as `tied`."""
        at = without[rank] if rank < draws else without.new_tensor(-math.inf)
        return int((present > at).sum()) + tied * int((present == at).sum())

    rank = min(int(draws * kappa), draws - 1)
    equal = without == without[rank]
    tied = (draws * kappa - int((without > without[rank]).sum())) / int(
        equal.sum()
    )  # share of the equal ratios in the event
    least, most = map(int, binom.ppf([0.0125, 0.9875], draws, kappa))  # how many draws without the row lie in the event
    low, high = above(max(least - 1, 0)), above(most, 1.0)
    return Estimate(
        above(rank, tied) / draws, float(lower_bound(low, draws, 0.0125)), float(upper_bound(high, draws, 0.0125))
    )


def _log_ratios(mechanisms: Sequence[SampledGaussian], draws: int, present: bool, generator: torch.Generator) -> Tensor:
    """Log-likelihood ratios (draws,), log dP/dQ, of outputs with the row (`present`) or without it."""
    total = torch.zeros(draws, dtype=torch.float64)
    for each in mechanisms:
        together = max(1, CHUNK // draws)
        for first in range(0, each.steps, together):
            shape = (min(together, each.steps - first), draws)
            output = each.sigma * torch.randn(shape, dtype=torch.float64, generator=generator)
            if present:
                output += torch.rand(shape, dtype=torch.float64, generator=generator) < each.q
            total += subsampled_log_ratio(output / each.sigma**2 - 0.5 / each.sigma**2, each.q).sum(0)
    return total


def _check(kappa: float) -> None:
    if not 0 < kappa <= 1:
        raise ValueError(f"kappa must lie in (0, 1], got {kappa}: 1 / M for M equally likely candidates")
