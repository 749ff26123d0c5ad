"""Three privacy accountants behind one signature: RDP and PLD by dp-accounting, PRV by Opacus."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from aisec_lab.privacy.composition import FINE, LEAST_DELTA, pld, rounding
from aisec_lab.privacy.mechanisms import PrivacyStatement, SampledGaussian

PRV_ERROR, PRV_MOST = 1e-3, 1.0  # error of epsilon that we request from Opacus; the largest that we accept
RDP_LEAST = 1e-11  # Rényi divergence of order 2 of one step, below which rounding dominates
PRV_POINTS = 1e7  # points of the grid at most


def rdp(gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], delta: float) -> float:
    """Epsilon by Rényi differential privacy (Mironov et al., 2019, arXiv:1908.10530), computed by dp-accounting.

    A step with a tiny divergence is treated as one with a larger q: otherwise its series is lost in rounding, and
    dp-accounting returns an epsilon of 0 for any number of such steps.

    Args:
        gaussians: steps with noise; none is allowed.
        statements: guarantees of other mechanisms, added by basic composition.
        delta: of the guarantee.

    Returns:
        An upper bound on epsilon; `inf` where none can be shown.
    """
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    def gaussian_epsilon(remaining_delta: float) -> float:
        accountant = RdpAccountant()
        with _without_warning("Excluding this order"):  # one order less makes epsilon larger
            for each in gaussians:
                event = PoissonSampledDpEvent(_stable_q(each), GaussianDpEvent(each.sigma))
                accountant.compose(event, each.steps)
        return accountant.get_epsilon(remaining_delta)

    return _add_statements(statements, delta, gaussian_epsilon if gaussians else None)


def prv(gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], delta: float) -> float:
    """Epsilon by privacy loss random variables (Gopi et al., 2021, arXiv:2106.02848), computed by Opacus.

    The discretisation keeps the mean, and the upper end of the error is returned. Where the grid would have more than
    ten million points, the error grows, and in the end the result is `inf`.

    Args:
        gaussians: steps with noise; none is allowed.
        statements: guarantees of other mechanisms, added by basic composition.
        delta: of the guarantee.

    Returns:
        An upper bound on epsilon; `inf` where none can be shown.
    """
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV, compute_safe_domain_size

    def gaussian_epsilon(remaining_delta: float) -> float:
        counts = [each.steps for each in gaussians]
        remaining_delta -= float(rounding(sum(counts), remaining_delta))
        if remaining_delta <= 0:
            return math.inf
        accountant = PRVAccountant()
        accountant.history = [(each.sigma, each.q, each.steps) for each in gaussians]
        one = [PoissonSubsampledGaussianPRV(each.q, each.sigma) for each in gaussians]
        with np.errstate(divide="ignore"), warnings.catch_warnings():  # log(1 - q) at q = 1 is -inf, and right
            warnings.filterwarnings("ignore", "Optimal order")  # of the Rényi bound, which only sets the domain
            domain = compute_safe_domain_size(one, counts, PRV_ERROR, remaining_delta / 1000)
            finest = 2 * domain / PRV_POINTS * math.sqrt(sum(counts) * math.log(12_000 / remaining_delta) / 2)
            error = max(PRV_ERROR, finest)
            return accountant.get_epsilon(remaining_delta, eps_error=error) if error < PRV_MOST else math.inf

    return _add_statements(statements, delta, gaussian_epsilon if gaussians else None)


def _stable_q(step: SampledGaussian) -> float:
    """The step's q, or the larger one at which its Rényi divergence of order 2 is not lost in rounding."""
    least = math.sqrt(RDP_LEAST / math.expm1(step.sigma**-2)) if step.sigma > 1 else 0.0
    return max(step.q, min(1.0, least))


def _add_statements(
    statements: Sequence[PrivacyStatement], delta: float, gaussian_epsilon: Callable[[float], float] | None
) -> float:
    """Basic composition: the sum of the statements' epsilons and of the steps' at the remaining delta."""
    total = math.fsum(each.epsilon for each in statements)
    remaining_delta = delta - math.fsum(each.delta for each in statements)
    if gaussian_epsilon is None:
        return total if remaining_delta >= -1e-9 * delta else math.inf  # 10 times 1e-6 is 1e-5, whatever the rounding
    return total + gaussian_epsilon(remaining_delta) if remaining_delta >= LEAST_DELTA else math.inf


def pld_epsilon(
    gaussians: Sequence[SampledGaussian], statements: Sequence[PrivacyStatement], delta: float, grid: float = FINE
) -> float:
    """Epsilon by the privacy loss distribution (`pld`), computed by dp-accounting.

    Args:
        gaussians: steps with noise.
        statements: guarantees of other mechanisms, composed as the worst mechanisms that keep them.
        delta: of the guarantee; what rounding may cost is subtracted from it.
        grid: distance of two privacy losses.

    Returns:
        An upper bound on epsilon; `inf` where none can be shown.
    """
    remaining_delta = delta - float(rounding(sum(each.steps for each in gaussians) + len(statements), delta))
    if remaining_delta <= 0:
        return math.inf
    return pld(gaussians, statements, grid).get_epsilon_for_delta(remaining_delta)


@contextmanager
def _without_warning(words: str) -> Iterator[None]:
    """Suppress the warnings of dp-accounting that contain these words."""
    logger = logging.getLogger("absl")

    def keep(record: logging.LogRecord) -> bool:
        return words not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
