"""The distribution of the privacy loss of many steps, in bounded time and memory, from that of one."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, special
from tqdm import tqdm

from aisec_lab.privacy.mechanisms import PrivacyStatement, SampledGaussian

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

FINE, COARSE = 1e-4, 1e-3  # steps of the grid of privacy losses
POINTS = 1e6  # about so many of them at most: beyond, the grid grows coarser, which is still an upper bound
VAST = 130  # span of losses from where a tenth of the points will do: such an epsilon is no promise
WIDEST = 500  # step of the grid; e to the next power is no float
LEAST_DELTA = 1e-12  # below, rounding in the Fourier transforms is no longer small beside it
SLIGHT = 1e-6  # share of a delta up to which rounding is not counted: the grid errs by more, on the safe side
AT_ONCE = 4096  # steps that dp-accounting composes by one transform: its window and its rounding grow with them
RADIX = 64  # beyond, this power is taken again and again, each in a window of its own
ORDERS = 50  # of the moments that the window is sought by
LOSS = 8  # points in the standard deviation of a step's loss, of so many steps
TAIL = 1e-15  # probability that may be moved to an infinite loss, of all steps


def pld(
    gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], grid: float
) -> "PrivacyLossDistribution":
    """The privacy loss's distribution, in dp-accounting; but for rounding its epsilons and deltas are upper bounds.

    Discretised so that the dots are connected (Doroshenko et al., 2022, arXiv:2207.04380); a statement counts as the
    worst mechanism that keeps to it. Time and memory grow with the logarithm of the steps. A progress line is shown
    from the first second on.

    Args:
        grid: distance of two losses; grows where there would be more than about a million, and shrinks for more than
            4096 steps whose losses are smaller than it.
    """
    from dp_accounting.pld import privacy_loss_distribution as plds
    from dp_accounting.pld.common import DifferentialPrivacyParameters

    grid = _grid(gaussians, statements, grid)
    if grid > WIDEST:
        return plds.PrivacyLossDistribution.create_from_rounded_probability({0: 0.0}, 1.0, grid)

    def parts() -> Iterator[tuple[plds.PrivacyLossDistribution, int]]:  # one at a time: each may be large
        for step in gaussians:
            one = plds.from_gaussian_mechanism(step.sigma, value_discretization_interval=grid, sampling_prob=step.q)
            yield one, step.steps
        for each, count in counts.items():
            yield plds.from_privacy_parameters(DifferentialPrivacyParameters(each.epsilon, each.delta), grid), count

    counts = Counter(statements)
    powers = sum(len(_digits(count)) for count in (*(step.steps for step in gaussians), *counts.values()))
    total = plds.identity(grid)
    with tqdm(total=2 * powers, delay=1, leave=False, unit="power", desc="privacy losses") as progress:
        for one, count in parts():
            if count <= AT_ONCE:
                many = one.self_compose(count)
                progress.update(2 * len(_digits(count)))
            elif one._symmetric:
                many = plds.PrivacyLossDistribution(_power(one._pmf_remove, count, progress))
                progress.update(len(_digits(count)))
            else:
                both = (_power(pmf, count, progress) for pmf in (one._pmf_remove, one._pmf_add))
                many = plds.PrivacyLossDistribution(*both)
            total = total.compose(many)
    return total


def rounding(steps: int, deltas: ArrayLike) -> NDArray[np.float64]:
    """By how much rounding may have made each delta of so many steps too small; 0 where that is slight beside it.

    A Fourier coefficient of modulus one is off by up to half of 2**-52 after one step, and by as much more after each.
    """
    most = steps * np.finfo(np.float64).eps
    deltas = np.asarray(deltas, dtype=np.float64)
    return np.where(most > SLIGHT * deltas, most, 0.0)


def _digits(steps: int) -> list[int]:
    """Digits of a number with the radix, the highest first."""
    digits = []
    while steps:
        steps, digit = divmod(steps, RADIX)
        digits.append(digit)
    return digits[::-1]


def _power(pmf: Any, steps: int, progress: "tqdm[NoReturn]") -> Any:
    """A distribution composed with itself, by Horner's rule on the digits of `steps`.

    What dp-accounting composes at once takes a window that grows with the steps, and not with their root as the losses
    do. Here each power has the window that Chernoff's bound on one step says, and what may lie outside, in all at most
    TAIL, is moved to an infinite loss.

    Args:
        pmf: of one step.
        steps: how often.
        progress: moved on by each digit.
    """
    from dp_accounting.pld import pld_pmf

    pmf = pmf.to_dense_pmf()
    one, offset, digits, composed = pmf._probs, int(pmf._lower_loss), _digits(steps), 0
    orders = np.geomspace(0.01 / len(one), 1, ORDERS)
    places = np.arange(len(one))
    moments = [[special.logsumexp(side * order * places, b=one) for order in orders] for side in (1, -1)]
    losses, lowest = np.ones(1), 0
    for digit in digits:
        composed = RADIX * composed + digit
        tail = TAIL / len(digits) * (composed / steps)
        above, below = ((composed * np.array(side) + math.log(2 / tail)) / orders for side in moments)
        low, high = max(0, math.floor(-below.min())), min(composed * (len(one) - 1), math.ceil(above.min()))
        size = fft.next_fast_len(max(high - low + 1, len(losses), len(one)), real=True)
        spectrum = fft.rfft(losses, size) ** RADIX * fft.rfft(one, size) ** digit
        start = low + composed * offset
        shift = RADIX * lowest + digit * offset - start  # where the window has its first loss
        losses, lowest = np.roll(fft.irfft(spectrum, size), shift % size)[: high - low + 1], start
        progress.update()
    infinite = TAIL - math.expm1(steps * math.log1p(-pmf._infinity_mass))
    return pld_pmf.DensePLDPmf(pmf._discretization, lowest, losses, infinite, pessimistic_estimate=True)


def _grid(gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], grid: float) -> float:
    """The distance of two losses: wider than `grid` for large losses, finer for small ones of very many steps."""
    promised = math.fsum(each.epsilon for each in statements)
    one = max((each.sigma**-2 / 2 + 10 / each.sigma for each in gaussians), default=0.0)
    renyi = [_renyi(each) for each in gaussians]
    every = math.fsum(each.steps * of_one for each, of_one in zip(gaussians, renyi, strict=True))
    span = max(math.log(1 / LEAST_DELTA) + promised + every, one)  # about the largest loss that counts
    coarse = max(grid, span / (POINTS if span <= VAST else POINTS / 10))
    small = [math.sqrt(of_one) for each, of_one in zip(gaussians, renyi, strict=True) if each.steps > AT_ONCE]
    fine = min(small, default=math.inf) / LOSS * grid / FINE
    return min(coarse, max(fine, (one + promised + 20 * math.sqrt(every)) / POINTS))


def _renyi(step: SampledGaussian) -> float:
    """The Rényi divergence of order 2 of one step; about the variance of its loss where that is small."""
    unsampled = math.log1p(-(step.q**2)) if step.q < 1 else -math.inf
    return float(np.logaddexp(unsampled, 2 * math.log(step.q) + step.sigma**-2))
