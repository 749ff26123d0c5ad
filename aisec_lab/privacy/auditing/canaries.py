"""The canary audit: a lower bound on epsilon from many trainings with a canary and many without it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtr, ndtri
from torch import Tensor

from aisec_lab.core import binomial

HALVINGS = 60  # of the interval that holds the bound, to the last digits of a float
TINY = 1e-12  # stands for a mu of 0, by which nothing can be divided

Conversion = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class CanaryBound:
    """What a canary audit has found.

    Args:
        epsilon: the lower bound, 0 where nothing is certain, infinite where delta is passed at any epsilon.
        threshold: scores of at least this much were taken for "the canary was in".
        tpr_low, fpr_high: bounds on the rates of "in" with the canary and without it, both right at the confidence.
    """

    epsilon: float
    threshold: float
    tpr_low: float
    fpr_high: float


def from_rates(tpr: np.ndarray, fpr: np.ndarray, delta: float) -> np.ndarray:
    """The least epsilon at which (epsilon, delta)-DP allows such rates (Kairouz et al., 2015, arXiv:1311.0776, eq. 3).

    TPR <= e^epsilon FPR + delta, and the same for the rates at which both are said to be out.

    Args:
        tpr, fpr: rates in [0, 1], of one shape.
        delta: in [0, 1).

    Returns:
        Epsilons, at least 0, shape of `tpr`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        told_in = np.log(np.maximum(tpr - delta, 0)) - np.log(fpr)
        told_out = np.log(np.maximum(1 - fpr - delta, 0)) - np.log1p(-tpr)
    return np.fmax(np.fmax(told_in, told_out), 0.0)  # NaN is log 0 - log 0: rates that ask for nothing


def from_gaussian(tpr: np.ndarray, fpr: np.ndarray, delta: float) -> np.ndarray:
    """The least epsilon at which a mechanism with the trade-off of two normal laws allows such rates, at delta.

    The rates lie at least mu = Phi^-1(TPR) - Phi^-1(FPR) apart (Nasr et al., 2023, arXiv:2302.07956, section 4), and
    mu-Gaussian privacy is (epsilon, delta)-DP as in `gaussian_epsilon`. Far above `from_rates` where few runs are to
    certify a small delta, but a lower bound only if the mechanism is Gaussian: the sum of a full-batch step, or the
    composition of many steps, nearly. On randomized response it is wrong.

    Args, returns: as for `from_rates`.
    """
    mu = np.maximum(ndtri(tpr) - ndtri(fpr), 0.0)
    return gaussian_epsilon(mu, delta)


@dataclass(frozen=True)
class CanaryAudit:
    """A lower bound on epsilon from the scores of runs with and without a canary (Nasr et al., 2021, arXiv:2101.04535).

    Half of the runs choose the threshold, and the other half give the rates at it their Clopper-Pearson bounds: an
    interval at a threshold that was chosen on the same runs would be none.

    Args:
        delta: of the (epsilon, delta) that is bounded.
        confidence: how often, at least, the bound does not pass the true epsilon.
        conversion: from rates to epsilon; `from_rates`, which assumes nothing, or `from_gaussian`.

    Args of the call:
        inside: scores of independent runs with the canary, (n,), bigger is "the canary was in".
        outside: the same of independent runs without it, (m,).
        generator: draws the halves.

    Returns:
        The bound and the rates that it rests on.

    Raises:
        ValueError: a delta or a confidence outside [0, 1) and (0, 1), scores that are NaN, fewer than 2 runs of a kind.
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
        for name, scores in (("inside", inside), ("outside", outside)):
            if scores.ndim != 1 or len(scores) < 2 or scores.isnan().any():
                raise ValueError(f"{name} must be scores (n,) of at least 2 runs, no NaN, got {tuple(scores.shape)}")
        known_in, new_in = halves(inside, generator)
        known_out, new_out = halves(outside, generator)
        thresholds = np.unique(np.concatenate([known_in, known_out]))
        threshold = thresholds[self._epsilons(known_in, known_out, thresholds)[0].argmax()]
        epsilon, tpr, fpr = self._epsilons(new_in, new_out, np.array([threshold]))
        return CanaryBound(epsilon.item(), threshold.item(), tpr.item(), fpr.item())

    def _epsilons(self, inside: np.ndarray, outside: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, ...]:
        """The bound at each threshold, and those on the two rates; right at the confidence for any one threshold."""
        alpha = (1 - self.confidence) / 2  # one rate, then the other
        hits = len(inside) - np.searchsorted(np.sort(inside), thresholds)
        false = len(outside) - np.searchsorted(np.sort(outside), thresholds)
        tpr = binomial.lower_bound(hits, len(inside), alpha)
        fpr = binomial.upper_bound(false, len(outside), alpha)
        return self.conversion(tpr, fpr, self.delta), tpr, fpr


def halves(scores: Tensor, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n,) at random in two parts, n // 2 and the rest, float64."""
    order = torch.randperm(len(scores), generator=generator)
    mixed = scores.detach().cpu().double()[order].numpy()
    return mixed[: len(scores) // 2], mixed[len(scores) // 2 :]


def gaussian_delta(mu: ArrayLike, epsilon: ArrayLike) -> np.ndarray:
    """The delta of mu-Gaussian privacy at an epsilon (Dong et al., 2022, arXiv:1905.02383, corollary 2.13).

    It is Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu), and that of a Gaussian mechanism whose sensitivity
    is mu times its standard deviation.

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
    """The epsilon of mu-Gaussian privacy (mu >= 0, any shape) at a delta in (0, 1); 0 where delta alone covers it.

    Raises:
        ValueError: a negative mu, NaN, or a delta outside (0, 1).
    """
    if not (np.asarray(mu) >= 0).all() or not 0 < delta < 1:
        raise ValueError(f"mu must be at least 0 and delta lie in (0, 1), got {mu!r} and {delta}")
    mu = np.maximum(np.asarray(mu, dtype=np.float64), TINY)
    low, high = np.zeros_like(mu), mu * np.maximum(mu / 2 - ndtri(delta), 0)  # where the first term alone is delta
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = gaussian_delta(mu, middle) > delta
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return low
