"""Privacy loss distributions of many composed steps, in bounded time and memory."""

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

FINE, COARSE = 1e-4, 1e-3  # distances of two privacy losses on the grid
POINTS = 1e6  # about so many points at most: beyond, the grid gets coarser, which is still an upper bound
VAST = 130  # range of losses from which a tenth of the points is enough: such an epsilon guarantees nothing
WIDEST = 500  # largest distance on the grid; beyond, exp overflows
LEAST_DELTA = 1e-12  # below, rounding in the Fourier transforms matters
SLIGHT = 1e-6  # share of a delta up to which rounding is ignored: the grid errs by more, on the safe side
AT_ONCE = 4096  # steps that dp-accounting composes by one transform: its window and its rounding grow with them
RADIX = 64  # beyond, steps are composed by this power again and again, each in a window of its own
ORDERS = 50  # of the moments that bound the window
LOSS = 8  # grid points per standard deviation of one step's loss, where there are more than `AT_ONCE` steps
TAIL = 1e-15  # probability, of all steps, that may be moved to an infinite loss


def pld(
    gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], grid: float
) -> "PrivacyLossDistribution":
    """The privacy loss distribution of composed mechanisms, in dp-accounting's class.

    It is discretised by connecting the dots (Doroshenko et al., 2022, arXiv:2207.04380). Time and memory grow with the
    logarithm of the steps. A progress line is shown after the first second.

    Args:
        gaussians: steps with noise.
        statements: guarantees of other mechanisms; each is composed as the worst mechanism that satisfies it.
        grid: distance of two losses. It is widened where there would be more than about a million points, and narrowed
            for more than 4096 steps with smaller losses.

    Returns:
        A distribution whose epsilons and deltas are upper bounds, but for `rounding`.
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
    """By how much rounding may have made a delta too small.

    A Fourier coefficient of modulus one is off by up to 2**-53 after one step, and by as much more after each.

    Args:
        steps: number of composed mechanisms.
        deltas: computed deltas, any shape.

    Returns:
        Corrections, shape of `deltas`; 0 where they are below a millionth of the delta.
    """
    most = steps * np.finfo(np.float64).eps
    deltas = np.asarray(deltas, dtype=np.float64)
    return np.where(most > SLIGHT * deltas, most, 0.0)


def _digits(steps: int) -> list[int]:
    """The digits of a number in base `RADIX`, the highest first."""
    digits = []
    while steps:
        steps, digit = divmod(steps, RADIX)
        digits.append(digit)
    return digits[::-1]


def _power(pmf: Any, steps: int, progress: "tqdm[NoReturn]") -> Any:
    """A distribution composed with itself `steps` times, by Horner's rule on the digits of `steps`.

    The window of dp-accounting's own composition grows with the steps, though the losses grow with their square root.
    Here a Chernoff bound on one step gives the window of each power. The probability outside, at most `TAIL` in all, is
    moved to an infinite loss.
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
        shift = RADIX * lowest + digit * offset - start  # index of the first loss in the window
        losses, lowest = np.roll(fft.irfft(spectrum, size), shift % size)[: high - low + 1], start
        progress.update()
    infinite = TAIL - math.expm1(steps * math.log1p(-pmf._infinity_mass))
    return pld_pmf.DensePLDPmf(pmf._discretization, lowest, losses, infinite, pessimistic_estimate=True)


def _grid(gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], grid: float) -> float:
    """The distance of two losses: wider than `grid` for large losses, finer for small losses of very many steps."""
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
