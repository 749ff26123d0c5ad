"""Three accountants that others wrote, asked in one way: Rényi moments, and twice the privacy loss's distribution."""

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from aisec_lab.privacy.mechanisms import SampledGaussian, Statement

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

FINE, COARSE = 1e-4, 1e-3  # steps of the grid of privacy losses
POINTS = 1e6  # about so many of them at most: beyond, the grid grows coarser, which is still an upper bound
LEAST_DELTA = 1e-12  # below, rounding in the Fourier transforms is no longer small beside it
PRV_ERROR = 1e-3  # of epsilon, that Opacus is asked to keep to


def rdp(gaussians: Sequence[SampledGaussian], statements: Sequence[Statement], delta: float) -> float:
    """Epsilon by Rényi divergences (Mironov et al., 2019, arXiv:1908.10530), in dp-accounting; statements are added."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    def spent(left: float) -> float:
        accountant = RdpAccountant()
        with _unsaid("Excluding this order"):  # an order less makes epsilon larger
            for each in gaussians:
                accountant.compose(PoissonSampledDpEvent(each.q, GaussianDpEvent(each.sigma)), each.steps)
        return accountant.get_epsilon(left)

    return _beside(statements, delta, spent if gaussians else None)


def prv(gaussians: Sequence[SampledGaussian], statements: Sequence[Statement], delta: float) -> float:
    """Epsilon by the privacy loss's distribution (Gopi et al., 2021, arXiv:2106.02848), in Opacus; statements added.

    The mean is kept in discretising and the upper end of the error returned.
    """
    from opacus.accountants import PRVAccountant

    def spent(left: float) -> float:
        accountant = PRVAccountant()
        accountant.history = [(each.sigma, each.q, each.steps) for each in gaussians]
        with np.errstate(divide="ignore"), warnings.catch_warnings():  # log(1 - q) at q = 1 is -inf, and right
            warnings.filterwarnings("ignore", "Optimal order")  # of the Rényi bound that only sets how wide it looks
            return accountant.get_epsilon(left, eps_error=PRV_ERROR)

    return _beside(statements, delta, spent if gaussians else None)


def _beside(statements: Sequence[Statement], delta: float, spent: Callable[[float], float] | None) -> float:
    """Basic composition: what the statements say, and what is spent at the delta that they leave."""
    total = math.fsum(each.epsilon for each in statements)
    left = delta - math.fsum(each.delta for each in statements)
    if spent is None:
        return total if left >= -1e-9 * delta else math.inf  # ten times 1e-6 is 1e-5, however it was rounded
    return total + spent(left) if left >= LEAST_DELTA else math.inf


def pld_epsilon(
    gaussians: Sequence[SampledGaussian], statements: Sequence[Statement], delta: float, grid: float = FINE
) -> float:
    """Epsilon by `pld`."""
    return pld(gaussians, statements, grid).get_epsilon_for_delta(delta)


def pld(
    gaussians: Sequence[SampledGaussian], statements: Sequence[Statement], grid: float
) -> "PrivacyLossDistribution":
    """The privacy loss's distribution, in dp-accounting; its epsilons and deltas are upper bounds.

    Discretised so that the dots are connected (Doroshenko et al., 2022, arXiv:2207.04380); a statement counts as the
    worst mechanism that keeps to it.

    Args:
        grid: distance of two losses; grows where there would be more than about a million.
    """
    from dp_accounting.pld import privacy_loss_distribution as plds
    from dp_accounting.pld.common import DifferentialPrivacyParameters

    grid = max(grid, _span(gaussians, statements) / POINTS)
    total = plds.identity(grid)
    for each in gaussians:
        one = plds.from_gaussian_mechanism(each.sigma, sampling_prob=each.q, value_discretization_interval=grid)
        total = total.compose(one.self_compose(each.steps))
    for statement, count in Counter(statements).items():
        promise = DifferentialPrivacyParameters(statement.epsilon, statement.delta)
        total = total.compose(plds.from_privacy_parameters(promise, grid).self_compose(count))
    return total


def _span(gaussians: Sequence[SampledGaussian], statements: Sequence[Statement]) -> float:
    """About the largest privacy loss that counts: of one step, and of all by their Rényi divergence of order 2."""
    span = math.log(1 / LEAST_DELTA) + math.fsum(each.epsilon for each in statements)
    for each in gaussians:
        unsampled = math.log1p(-(each.q**2)) if each.q < 1 else -math.inf
        span += each.steps * float(np.logaddexp(unsampled, 2 * math.log(each.q) + each.sigma**-2))
    return max([span, *(each.sigma**-2 / 2 + 10 / each.sigma for each in gaussians)])


@contextmanager
def _unsaid(words: str) -> Iterator[None]:
    """Leave out warnings of dp-accounting with these words."""
    logger = logging.getLogger("absl")

    def said(record: logging.LogRecord) -> bool:
        return words not in record.getMessage()

    logger.addFilter(said)
    try:
        yield
    finally:
        logger.removeFilter(said)
