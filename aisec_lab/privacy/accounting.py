"""What repeated looks at the same rows promise together: an upper bound on epsilon, and the noise for one."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aisec_lab.privacy.accountants import pld_epsilon, prv, rdp
from aisec_lab.privacy.composition import COARSE, FINE, LEAST_DELTA, pld, rounding
from aisec_lab.privacy.mechanisms import Mechanism, PrivacyStatement, SampledGaussian, merged

__all__ = [
    "Mechanism",
    "PrivacyStatement",
    "SampledGaussian",
    "check_target",
    "delta_profile",
    "epsilon",
    "epsilons",
    "noise_multiplier",
]

LEAST_NOISE, MOST_NOISE = 0.1, 1e6  # where `noise_multiplier` looks


def check_target(epsilon: float, delta: float, rows: int) -> None:
    """Refuse a target that protects nobody.

    Raises:
        ValueError: `epsilon` not positive, or `delta` not in (0, 1 / rows): at 1 / rows, publishing one whole row of
            the dataset would keep to it.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}: from 1 to 8 is common")
    if not 0 < delta < 1 / rows:
        raise ValueError(f"delta must lie above 0 and below 1/{rows} rows, got {delta}: try {0.1 / rows:.1g}")


def epsilons(
    mechanisms: Sequence[Mechanism], delta: float, *, accountants: Sequence[str] = ("rdp", "pld")
) -> dict[str, float]:
    """The epsilon of all the mechanisms on the same rows, by each accountant.

    Each may look at the results of the ones before it; its parameters must not depend on them.

    Args:
        mechanisms: in any order.
        delta: in [1e-12, 1).
        accountants: of "rdp" (Rényi moments; dp-accounting), "prv" (Opacus, with an error of 0.001 on the safe side)
            and "pld" (dp-accounting, pessimistic on a grid of 1e-4, coarser where that would be a million points).
            However many steps there are, each takes seconds and some hundred megabytes.

    Returns:
        By name; each an upper bound, `inf` where nothing is promised or can be shown. "pld" composes statements with
        the rest, as the worst mechanism that keeps to them; "rdp" and "prv" add them (basic composition).

    Raises:
        ValueError: another accountant, or a delta outside.
    """
    methods = {"rdp": rdp, "prv": prv, "pld": pld_epsilon}
    if unknown := set(accountants) - set(methods):
        raise ValueError(f"no accountant {sorted(unknown)}: choose from {sorted(methods)}")
    if not LEAST_DELTA <= delta < 1:
        raise ValueError(f"delta must lie in [{LEAST_DELTA:g}, 1), got {delta}: below it rounding decides")
    gaussians, statements = merged(mechanisms)
    if not all(each.noisy for each in gaussians):
        return dict.fromkeys(accountants, math.inf)
    return {name: _epsilon_by(methods[name], tuple(gaussians), tuple(statements), delta) for name in accountants}


def epsilon(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """The tightest of "rdp" and "pld" of `epsilons`, which are both proofs."""
    return min(epsilons(mechanisms, delta).values())


@lru_cache(maxsize=256)  # a book asks for the same sum when it is charged, and to say what is spent
def _epsilon_by(
    method: Callable[..., float],
    gaussians: tuple[SampledGaussian, ...],
    statements: tuple[PrivacyStatement, ...],
    delta: float,
) -> float:
    return float(method(gaussians, statements, delta))


@lru_cache  # a training asks when it starts, and again when it is accounted for
def noise_multiplier(epsilon: float, delta: float, q: float, steps: int) -> float:
    """The smallest noise that keeps to a target.

    Args:
        epsilon: target, positive.
        delta, q, steps: as above; at least one step.

    Returns:
        Sigma, at most a thousandth above the smallest whose `epsilon` (by "pld") is not above the target, and never
        below 0.1.

    Raises:
        ValueError: arguments outside, or a target that no noise up to a million meets.
    """
    if not (0 < epsilon < math.inf and steps > 0 and LEAST_DELTA <= delta < 1):
        given = f"epsilon {epsilon}, delta {delta}, steps {steps}"
        raise ValueError(
            f"noise is for a finite epsilon > 0, delta in [{LEAST_DELTA:g}, 1) and at least one step, got {given}"
        )

    def kept(sigma: float, grid: float) -> bool:
        return pld_epsilon([SampledGaussian(q, sigma, steps)], [], delta, grid) <= epsilon

    def bisected(low: float, high: float, ratio: float, grid: float) -> tuple[float, float]:
        while high / low > ratio:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if kept(middle, grid) else (middle, high)
        return low, high

    high = 1.0
    while not kept(high, COARSE):
        high *= 2
        if high > MOST_NOISE:
            raise ValueError(
                f"no noise multiplier up to {MOST_NOISE:g} meets epsilon {epsilon} at delta {delta}: ask less"
            )
    low = high / 2
    while low > LEAST_NOISE and kept(low, COARSE):
        low, high = low / 2, low
    if low <= LEAST_NOISE and kept(LEAST_NOISE, COARSE):
        return LEAST_NOISE
    # a coarser grid asks for more noise: its answer lies a little above the fine one's
    high = bisected(max(low, LEAST_NOISE), high, 1.0005, COARSE)[1]
    while not kept(high, FINE):
        high *= 1.0005
    width = 1.001
    while kept(low := high / width, FINE):
        high, width = low, width**2
    return bisected(low, high, 1.001, FINE)[1]


def delta_profile(mechanisms: Sequence[Mechanism], epsilons: ArrayLike) -> NDArray[np.float64]:
    """The smallest delta of all the mechanisms together at each epsilon (by "pld", an upper bound).

    Args:
        mechanisms: as above; one without noise has delta 1 everywhere.
        epsilons: real numbers, any shape; negative ones, too, tell correct mechanisms from broken ones.

    Returns:
        Deltas in [0, 1], of the same shape.
    """
    gaussians, statements = merged(mechanisms)
    points = np.asarray(epsilons, dtype=np.float64)
    if not all(each.noisy for each in gaussians):
        return np.ones_like(points)
    losses = pld(gaussians, statements, FINE)
    deltas = [losses.get_delta_for_epsilon(float(point)) for point in points.flat]  # one by one: all at once cancels
    found = np.array(deltas, dtype=np.float64).reshape(points.shape)
    return np.clip(found + rounding(sum(each.steps for each in gaussians) + len(statements), found), 0, 1)
