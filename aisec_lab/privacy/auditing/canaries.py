"""The canary audit: a lower bound on epsilon from many trainings with a canary and many without it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtr, ndtri
from torch import Tensor

from aisec_lab.core import binomial

HALVINGS = 60  # of the interval that holds the bound, down to float64 precision
TINY = 1e-12  # replaces a mu of 0, to avoid division by zero

Conversion = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class CanaryBound:
    """The result of a canary audit.

    Args:
        epsilon: the lower bound; 0 where nothing is certain, infinite where delta is violated at any epsilon.
        threshold: scores of at least this count as "the canary was in the training set".
        tpr_low, fpr_high: lower bound on the true positive rate and upper bound on the false positive rate at the
            threshold; both hold together at the confidence.
    """

    epsilon: float
    threshold: float
    tpr_low: float
    fpr_high: float


def from_rates(tpr: np.ndarray, fpr: np.ndarray, delta: float) -> np.ndarray:
    """The least epsilon at which (epsilon, delta)-DP allows such rates (Kairouz et al., 2015, arXiv:1311.0776, eq. 3).

    It requires TPR <= e^epsilon FPR + delta, and the same of the true and false negative rates.

    Args:
        tpr, fpr: rates in [0, 1], of one shape.
        delta: in [0, 1).

    Returns:
        Epsilons, at least 0, shape of `tpr`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        positives = np.log(np.maximum(tpr - delta, 0)) - np.log(fpr)
        negatives = np.log(np.maximum(1 - fpr - delta, 0)) - np.log1p(-tpr)
    return np.fmax(np.fmax(positives, negatives), 0.0)  # NaN is log 0 - log 0: rates that require nothing


def from_gaussian(tpr: np.ndarray, fpr: np.ndarray, delta: float) -> np.ndarray:
    """The least epsilon at which a mechanism with Gaussian DP allows such rates.

    The rates require mu >= Phi^-1(TPR) - Phi^-1(FPR) (Nasr et al., 2023, arXiv:2302.07956, section 4), and mu-Gaussian
    DP is (epsilon, delta)-DP as in `gaussian_epsilon`. With few runs and a small delta it is far above `from_rates`.
    But it is a lower bound only if the mechanism is Gaussian: a full-batch step or, nearly, the composition of many
    steps. For randomized response it is wrong.

    Args:
        tpr, fpr: rates in [0, 1], of one shape.
        delta: in (0, 1).

    Returns:
        Epsilons, at least 0, shape of `tpr`.
    """
    mu = np.maximum(ndtri(tpr) - ndtri(fpr), 0.0)
    return gaussian_epsilon(mu, delta)


@dataclass(frozen=True)
class CanaryAudit:
    """A lower bound on epsilon from runs with and without a canary (Nasr et al., 2021, arXiv:2101.04535).

    Half of the runs choose the threshold; the other half give Clopper-Pearson bounds on the rates at it. Bounds at a
    threshold that was chosen on the same runs would not be valid.

    Args:
        delta: in [0, 1); of the (epsilon, delta) that is bounded.
        confidence: in (0, 1); the probability with which the bound is at most the true epsilon.
        conversion: from rates to epsilon: `from_rates`, which assumes nothing, or `from_gaussian`.

    Raises:
        ValueError: a field out of its range.
    """

    delta: float
    confidence: float = 0.95
    conversion: Conversion = from_rates

    def __post_init__(self) -> None:
        if not (0 <= self.delta < 1 and 0 < self.confidence < 1):
            raise ValueError(f"delta must lie in [0, 1) and confidence in (0, 1): {self}")
        if self.conversion is from_gaussian and self.delta == 0:
            raise ValueError("no Gaussian mechanism has a finite epsilon at delta 0: give a positive delta")

    def __call__(self, inside: Tensor, outside: Tensor, *, generator: torch.Generator) -> CanaryBound:
        """Audit the scores of independent runs.

        Args:
            inside: scores (n,) of runs with the canary; larger means "the canary was in".
            outside: scores (m,) of runs without it.
            generator: splits both into halves.

        Returns:
            The bound, and the rates from which it follows.

        Raises:
            ValueError: NaN among the scores, or fewer than 2 runs of a kind.
        """
        for name, scores in (("inside", inside), ("outside", outside)):
            if scores.ndim != 1 or len(scores) < 2 or scores.isnan().any():
                raise ValueError(f"{name} must be scores (n,) of at least 2 runs, no NaN, got {tuple(scores.shape)}")
        first_in, second_in = halves(inside, generator)
        first_out, second_out = halves(outside, generator)
        thresholds = np.unique(np.concatenate([first_in, first_out]))
        threshold = thresholds[self._epsilons(first_in, first_out, thresholds)[0].argmax()]
        epsilon, tpr, fpr = self._epsilons(second_in, second_out, np.array([threshold]))
        return CanaryBound(epsilon.item(), threshold.item(), tpr.item(), fpr.item())

    def _epsilons(self, inside: np.ndarray, outside: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, ...]:
        """The bounds on epsilon, TPR and FPR at each threshold; they hold at the confidence for any single one."""
        alpha = (1 - self.confidence) / 2  # Bonferroni over two rates
        hits = len(inside) - np.searchsorted(np.sort(inside), thresholds)
        false = len(outside) - np.searchsorted(np.sort(outside), thresholds)
        tpr = binomial.lower_bound(hits, len(inside), alpha)
        fpr = binomial.upper_bound(false, len(outside), alpha)
        return self.conversion(tpr, fpr, self.delta), tpr, fpr


def halves(scores: Tensor, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split scores (n,) at random into two parts, n // 2 and the rest, float64."""
    order = torch.randperm(len(scores), generator=generator)
    mixed = scores.detach().cpu().double()[order].numpy()
    return mixed[: len(scores) // 2], mixed[len(scores) // 2 :]


def gaussian_delta(mu: ArrayLike, epsilon: ArrayLike) -> np.ndarray:
    """The delta of mu-Gaussian DP at an epsilon (Dong et al., 2022, arXiv:1905.02383, corollary 2.13).

    It is Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu). A Gaussian mechanism has mu = sensitivity over
    standard deviation.

    Args:
        mu: positive, of any shape.
        epsilon: of the same shape, or one that broadcasts.

    Returns:
        Deltas in [0, 1], float64.

    Raises:
        ValueError: a mu that is not positive, or NaN.
    """
    mu, epsilon = np.asarray(mu, dtype=np.float64), np.asarray(epsilon, dtype=np.float64)
    if not (mu > 0).all() or np.isnan(epsilon).any():
        raise ValueError(f"mu must be positive, and epsilon a number, got {mu} and {epsilon}")
    return ndtr(mu / 2 - epsilon / mu) - np.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu))


def gaussian_epsilon(mu: ArrayLike, delta: float) -> np.ndarray:
    """The epsilon of mu-Gaussian DP at a delta (Dong et al., 2022, arXiv:1905.02383, corollary 2.13), by bisection.

    Args:
        mu: at least 0, of any shape.
        delta: in (0, 1).

    Returns:
        Epsilons, float64, shape of `mu`; 0 where (0, delta)-DP holds.

    Raises:
        ValueError: a negative mu, NaN, or delta out of its range.
    """
    if not (np.asarray(mu) >= 0).all() or not 0 < delta < 1:
        raise ValueError(f"mu must be at least 0 and delta lie in (0, 1), got {mu!r} and {delta}")
    mu = np.maximum(np.asarray(mu, dtype=np.float64), TINY)
    low, high = np.zeros_like(mu), mu * np.maximum(mu / 2 - ndtri(delta), 0)  # where the first term alone is delta
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_low = gaussian_delta(mu, middle) > delta
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    return low
