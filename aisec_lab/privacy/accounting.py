"""Privacy accounting: an upper bound on the epsilon of composed mechanisms, and the noise that reaches a target."""

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

LEAST_NOISE, MOST_NOISE = 0.1, 1e6  # range in which `noise_multiplier` searches


def check_target(epsilon: float, delta: float, rows: int) -> None:
    """Refuse a target that protects nobody.

    Args:
        epsilon: positive.
        delta: in (0, 1 / rows). At 1 / rows, a mechanism that publishes one random row would satisfy it.
        rows: number of rows, or of clients, that are protected.

    Raises:
        ValueError: epsilon or delta out of its range.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}: from 1 to 8 is common")
    if not 0 < delta < 1 / rows:
        raise ValueError(f"delta must lie above 0 and below 1/{rows} rows, got {delta}: try {0.1 / rows:.1g}")


def epsilons(
    mechanisms: Sequence[Mechanism], delta: float, *, accountants: Sequence[str] = ("rdp", "pld")
) -> dict[str, float]:
    """The epsilon of the composition of mechanisms on the same rows, by several accountants.

    A mechanism may use the results of earlier ones, but its q, sigma and steps must not depend on them.

    Args:
        mechanisms: in any order.
        delta: in [1e-12, 1).
        accountants: any of "rdp" (Rényi divergences; dp-accounting), "prv" (privacy loss random variables; Opacus, with
            an error of 0.001 on the safe side) and "pld" (privacy loss distributions; dp-accounting, pessimistic, on a
            grid of 1e-4 or of at most about a million points). Each takes seconds and some hundred megabytes, however
            many steps there are.

    Returns:
        Epsilon by accountant. Each is an upper bound; `inf` where nothing is guaranteed or can be shown. "pld" composes
        a statement as the worst mechanism that satisfies it; "rdp" and "prv" add statements (basic composition).

    Raises:
        ValueError: an unknown accountant, or delta out of its range.
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
    """The smaller of the upper bounds "rdp" and "pld" of `epsilons`.

    Args:
        mechanisms: in any order, on the same rows.
        delta: in [1e-12, 1).

    Returns:
        An upper bound on epsilon; `inf` where nothing is guaranteed.

    Raises:
        ValueError: delta out of its range.
    """
    return min(epsilons(mechanisms, delta).values())


@lru_cache(maxsize=256)  # a privacy budget needs the same sum when it is charged and when it is shown
def _epsilon_by(
    method: Callable[..., float],
    gaussians: tuple[SampledGaussian, ...],
    statements: tuple[PrivacyStatement, ...],
    delta: float,
) -> float:
    return float(method(gaussians, statements, delta))


@lru_cache  # a training needs it when it starts, and again when it is accounted for
def noise_multiplier(epsilon: float, delta: float, q: float, steps: int) -> float:
    """The smallest noise multiplier that reaches a target, for steps of a sampled Gaussian mechanism.

    Args:
        epsilon: target, positive and finite.
        delta: in [1e-12, 1).
        q: sampling rate, in (0, 1].
        steps: at least 1.

    Returns:
        Sigma with an epsilon (by "pld") of at most the target; at most 0.1 % above the smallest such sigma, and never
        below 0.1.

    Raises:
        ValueError: an argument out of its range, or a target that no sigma up to a million reaches.
    """
    if not (0 < epsilon < math.inf and steps > 0 and LEAST_DELTA <= delta < 1):
        given = f"epsilon {epsilon}, delta {delta}, steps {steps}"
        raise ValueError(
            f"noise is for a finite epsilon > 0, delta in [{LEAST_DELTA:g}, 1) and at least one step, got {given}"
        )

    def reached(sigma: float, grid: float) -> bool:
        return pld_epsilon([SampledGaussian(q, sigma, steps)], [], delta, grid) <= epsilon

    def bisect(low: float, high: float, ratio: float, grid: float) -> tuple[float, float]:
        while high / low > ratio:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if reached(middle, grid) else (middle, high)
        return low, high

    high = 1.0
    while not reached(high, COARSE):
        high *= 2
        if high > MOST_NOISE:
            raise ValueError(
                f"no noise multiplier up to {MOST_NOISE:g} meets epsilon {epsilon} at delta {delta}: ask less"
            )
    low = high / 2
    while low > LEAST_NOISE and reached(low, COARSE):
        low, high = low / 2, low
    if low <= LEAST_NOISE and reached(LEAST_NOISE, COARSE):
        return LEAST_NOISE
    # a coarser grid needs more noise, so its result lies a little above that of the fine grid
    high = bisect(max(low, LEAST_NOISE), high, 1.0005, COARSE)[1]
    while not reached(high, FINE):
        high *= 1.0005
    width = 1.001
    while reached(low := high / width, FINE):
        high, width = low, width**2
    return bisect(low, high, 1.001, FINE)[1]


def delta_profile(mechanisms: Sequence[Mechanism], epsilons: ArrayLike) -> NDArray[np.float64]:
    """The privacy profile of composed mechanisms: delta at each epsilon (by "pld").

    Args:
        mechanisms: in any order, on the same rows; with one without noise, delta is 1 everywhere.
        epsilons: real numbers of any shape; negative ones, too, can show that a mechanism is broken.

    Returns:
        Upper bounds on delta in [0, 1], shape of `epsilons`.
    """
    gaussians, statements = merged(mechanisms)
    points = np.asarray(epsilons, dtype=np.float64)
    if not all(each.noisy for each in gaussians):
        return np.ones_like(points)
    losses = pld(gaussians, statements, FINE)
    deltas = [losses.get_delta_for_epsilon(float(point)) for point in points.flat]  # one by one: together, they cancel
    profile = np.array(deltas, dtype=np.float64).reshape(points.shape)
    return np.clip(profile + rounding(sum(each.steps for each in gaussians) + len(statements), profile), 0, 1)
