"""The one-run audit: a lower bound on epsilon from guesses about many canaries in a single training."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.special import bdtrc, expit
from torch import Tensor

from aisec_lab.core.binomial import tail

FRACTIONS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the canaries: numbers of guesses that `split_audit` tries
HALVINGS = 50  # of the interval that holds the bound


@dataclass(frozen=True)
class OneRunBound:
    """The result of a one-run audit.

    Args:
        epsilon: the lower bound, 0 where nothing is certain.
        correct: number of correct guesses.
        guesses: number of guesses.
        canaries: number of canaries.
    """

    epsilon: float
    correct: int
    guesses: int
    canaries: int


@dataclass(frozen=True)
class OneRunAudit:
    """A lower bound on epsilon from one model (Steinke, Nasr & Jagielski, 2023, arXiv:2305.08846, algorithm 1).

    Each of m canaries is in the training set with probability 1/2, independently. The audit guesses "in" for the
    canaries with the highest scores, "out" for those with the lowest, and abstains on the rest. The numbers of guesses
    must be fixed without knowing the inclusion, or chosen by `split_audit`. The bound is for add/remove neighbours.

    Args:
        k_plus: number of guesses "in", at least 0.
        k_minus: number of guesses "out", at least 0; both together at least 1.
        delta: in [0, 1); of the (epsilon, delta) that is bounded.
        confidence: in (0, 1); the probability with which the bound is at most the true epsilon.

    Raises:
        ValueError: a field out of its range.
    """

    k_plus: int
    k_minus: int
    delta: float = 0.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.k_plus < 0 or self.k_minus < 0 or self.k_plus + self.k_minus < 1:
            raise ValueError(f"k_plus and k_minus must not be negative and not both be 0: {self}: make some guesses")
        if not (0 <= self.delta < 1 and 0 < self.confidence < 1):
            raise ValueError(f"delta must lie in [0, 1) and confidence in (0, 1): {self}")

    def __call__(self, scores: Tensor, included: Tensor) -> OneRunBound:
        """Audit the scores of one run.

        Args:
            scores: finite scores (m,), computed without knowing the inclusion; larger means "was in".
            included: inclusion (m,), bool.

        Returns:
            The bound, and the counts from which it follows.

        Raises:
            ValueError: more guesses than canaries, or scores that are not finite or do not fit the inclusion.
        """
        check_scores(scores, included)
        guesses = self.k_plus + self.k_minus
        if guesses > len(scores):
            raise ValueError(f"{guesses} guesses about {len(scores)} canaries: lower k_plus or k_minus: {self}")
        ascending = included[scores.argsort(stable=True)]
        correct = int(ascending[len(scores) - self.k_plus :].sum() + (~ascending[: self.k_minus]).sum())
        epsilon = lower_bound(correct, guesses, len(scores), self.delta, self.confidence)
        return OneRunBound(epsilon, correct, guesses, len(scores))


def split_audit(
    scores: Tensor, included: Tensor, *, delta: float, confidence: float = 0.95, generator: torch.Generator
) -> OneRunBound:
    """A one-run audit of half of the canaries, with the numbers of guesses that are best on the other half.

    The bound is valid: given its inclusion, the first half is a fixed part of the training set for the second.

    Args:
        scores: finite scores (m,) of at least 4 canaries; larger means "was in".
        included: inclusion (m,), bool.
        delta: in [0, 1); of the (epsilon, delta) that is bounded.
        confidence: in (0, 1); the probability with which the bound is at most the true epsilon.
        generator: splits the canaries.

    Returns:
        The bound from the second half; its counts are those of that half.

    Raises:
        ValueError: fewer than 4 canaries, scores that are not finite or do not fit the inclusion, delta or confidence
            out of its range.
    """
    check_scores(scores, included)
    if len(scores) < 4:
        raise ValueError(f"{len(scores)} canaries cannot be halved: use at least 4, better some hundreds")
    order = torch.randperm(len(scores), generator=generator).to(scores.device)
    first, second = order[: len(scores) // 2], order[len(scores) // 2 :]
    counts = sorted({int(fraction * len(first)) for fraction in FRACTIONS})
    tried = [
        OneRunAudit(k_plus, k_minus, delta, confidence) for k_plus in counts for k_minus in counts if k_plus + k_minus
    ]
    best = max(tried, key=lambda audit: audit(scores[first], included[first]).epsilon)
    return best(scores[second], included[second])


def p_value(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """The largest probability of so many correct guesses if the training is (epsilon, delta)-DP (theorem 5.2).

    Without delta the correct guesses are dominated by B = Binomial(guesses, e^epsilon / (1 + e^epsilon)). With delta
    the probability is P[B >= v] + 2 m delta max_i P[v > B >= v - i] / i, for v correct guesses and m canaries.

    Args:
        correct: number of correct guesses, from 0 to `guesses`.
        guesses: number of guesses, from 1 to `canaries`.
        canaries: number of canaries.
        epsilon: at least 0.
        delta: in [0, 1).

    Returns:
        The p-value in [0, 1].
    """
    rate = float(expit(epsilon))
    pure = tail(correct, guesses, rate)
    if delta == 0:
        return pure
    failures = np.arange(1, correct + 1)  # i above
    missed = bdtrc(correct - failures - 1.0, guesses, rate) - pure
    return min(1.0, pure + 2 * canaries * delta * float((missed / failures).max(initial=0.0)))


@lru_cache(maxsize=4096)  # `split_audit` and simulations need the same counts again and again
def lower_bound(correct: int, guesses: int, canaries: int, delta: float, confidence: float = 0.95) -> float:
    """The largest epsilon that so many correct guesses reject, by bisection of `p_value`; 0 where there is none.

    Args:
        correct: number of correct guesses, from 0 to `guesses`.
        guesses: number of guesses, from 1 to `canaries`.
        canaries: number of canaries, each included with probability 1/2.
        delta: in [0, 1).
        confidence: in (0, 1); the probability with which the bound is at most the true epsilon.

    Returns:
        The lower bound on epsilon.

    Raises:
        ValueError: counts that do not fit each other.
    """
    if not 0 <= correct <= guesses <= canaries or guesses < 1:
        raise ValueError(f"need 0 <= correct <= guesses <= canaries, and a guess, got {correct}, {guesses}, {canaries}")
    alpha = 1 - confidence
    low, high = 0.0, 1.0
    if p_value(correct, guesses, canaries, low, delta) >= alpha:
        return 0.0
    while p_value(correct, guesses, canaries, high, delta) < alpha:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if p_value(correct, guesses, canaries, middle, delta) < alpha:
            low = middle
        else:
            high = middle
    return low


def max_certifiable_epsilon(canaries: int, delta: float = 0.0, confidence: float = 0.95) -> float:
    """The largest lower bound on epsilon that a one-run audit can give: all canaries are guessed correctly.

    Without delta it is log(p / (1 - p)) with p = (1 - confidence)^(1 / canaries).

    Args:
        canaries: number of canaries, at least 1.
        delta: in [0, 1).
        confidence: in (0, 1).

    Returns:
        The bound.
    """
    return lower_bound(canaries, canaries, canaries, delta, confidence)


def check_scores(scores: Tensor, included: Tensor) -> None:
    """Refuse scores that are not finite, or that are not one per canary, with a ValueError."""
    if included.dtype != torch.bool or scores.ndim != 1 or included.shape != scores.shape or not len(scores):
        raise ValueError(
            f"need a score (m,) and a coin, bool (m,), for each canary, "
            f"got {tuple(scores.shape)} and {included.dtype} {tuple(included.shape)}"
        )
    if not scores.isfinite().all():
        raise ValueError("scores must be finite, got NaN or infinity: clamp the confidences before the logarithm")
