"""Three accountants that others wrote, asked in one way: Rényi moments, and twice the privacy loss's distribution."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from aisec_lab.privacy.composition import FINE, LEAST_DELTA, pld, rounding
from aisec_lab.privacy.mechanisms import PrivacyStatement, SampledGaussian

PRV_ERROR, PRV_MOST = 1e-3, 1.0  # of epsilon, that Opacus is asked to keep to; where its grid would be too large
RDP_LEAST = 1e-11  # Rényi divergence of order 2 of a step, below which rounding counts
PRV_POINTS = 1e7  # of the grid at most


def rdp(gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], delta: float) -> float:
    """Epsilon by Rényi divergences (Mironov et al., 2019, arXiv:1908.10530), in dp-accounting; statements are added.

    A step that tells next to nothing counts as one that samples more, since the series of its divergence is lost in
    rounding: dp-accounting would return an epsilon of 0 for any number of such steps.
    """
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    def spent(left: float) -> float:
        accountant = RdpAccountant()
        with _unsaid("Excluding this order"):  # an order less makes epsilon larger
            for each in gaussians:
                event = PoissonSampledDpEvent(_seen(each), GaussianDpEvent(each.sigma))
                accountant.compose(event, each.steps)
        return accountant.get_epsilon(left)

    return _beside(statements, delta, spent if gaussians else None)


def prv(gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], delta: float) -> float:
    """Epsilon by the privacy loss's distribution (Gopi et al., 2021, arXiv:2106.02848), in Opacus; statements added.

    The mean is kept in discretising and the upper end of the error returned. The error grows, and at last the answer is
    `inf`, where its grid would have more than ten million points.
    """
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV, compute_safe_domain_size

    def spent(left: float) -> float:
        counts = [each.steps for each in gaussians]
        left -= float(rounding(sum(counts), left))
        if left <= 0:
            return math.inf
        accountant = PRVAccountant()
        accountant.history = [(each.sigma, each.q, each.steps) for each in gaussians]
        one = [PoissonSubsampledGaussianPRV(each.q, each.sigma) for each in gaussians]
        with np.errstate(divide="ignore"), warnings.catch_warnings():  # log(1 - q) at q = 1 is -inf, and right
            warnings.filterwarnings("ignore", "Optimal order")  # of the Rényi bound that only sets how wide it looks
            reach = compute_safe_domain_size(one, counts, PRV_ERROR, left / 1000)
            finest = 2 * reach / PRV_POINTS * math.sqrt(sum(counts) * math.log(12_000 / left) / 2)
            error = max(PRV_ERROR, finest)
            return accountant.get_epsilon(left, eps_error=error) if error < PRV_MOST else math.inf

    return _beside(statements, delta, spent if gaussians else None)


def _seen(step: SampledGaussian) -> float:
    """Its q, or the larger one at which its Rényi divergence of order 2 is still a number beside 1."""
    least = math.sqrt(RDP_LEAST / math.expm1(step.sigma**-2)) if step.sigma > 1 else 0.0
    return max(step.q, min(1.0, least))


def _beside(statements: Sequence[PrivacyStatement], delta: float, spent: Callable[[float], float] | None) -> float:
    """Basic composition: what the statements say, and what is spent at the delta that they leave."""
    total = math.fsum(each.epsilon for each in statements)
    left = delta - math.fsum(each.delta for each in statements)
    if spent is None:
        return total if left >= -1e-9 * delta else math.inf  # ten times 1e-6 is 1e-5, however it was rounded
    return total + spent(left) if left >= LEAST_DELTA else math.inf


def pld_epsilon(
    gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], delta: float, grid: float = FINE
) -> float:
    """Epsilon by `pld`, at the delta that rounding leaves."""
    left = delta - float(rounding(sum(each.steps for each in gaussians) + len(statements), delta))
    return pld(gaussians, statements, grid).get_epsilon_for_delta(left) if left > 0 else math.inf


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
