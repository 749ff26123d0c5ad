"""The one-run audit: a lower bound on epsilon from guesses about many canaries in a single training."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.special import bdtrc, expit
from torch import Tensor

from aisec_lab.core.binomial import tail

FRACTIONS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the canaries: the two counts that `split_audit` tries
HALVINGS = 50  # of the interval that holds the bound: far below what a bound is printed with


@dataclass(frozen=True)
class OneRunBound:
    """What a one-run audit has found.

    Args:
        epsilon: the lower bound, 0 where nothing is certain.
        correct: how many guesses were right.
        guesses: how many were made.
        canaries: how many records tossed a coin.
    """

    epsilon: float
    correct: int
    guesses: int
    canaries: int


@dataclass(frozen=True)
class OneRunAudit:
    """A lower bound on epsilon from one model (Steinke, Nasr & Jagielski, 2023, arXiv:2305.08846, algorithm 1).

    Each of m canaries was put into the training set or left out of it by a fair coin of its own. The canaries with the
    highest scores are guessed to be in, those with the lowest to be out, and the audit keeps silent on the rest. The
    counts of guesses have to be fixed before the coins are looked at, or by `split_audit`.

    The bound is on add/remove privacy: a canary is there or it is not, and nothing takes its place.

    Args:
        k_plus: guesses "in".
        k_minus: guesses "out".
        delta: of the (epsilon, delta) that is bounded.
        confidence: how often, at least, the bound does not pass the true epsilon.

    Args of the call:
        scores: one a canary, (m,), finite, computed without the coins; bigger is "was in the training set".
        included: the coins (m,), bool; true where the canary was in.

    Returns:
        The bound and the counts that it rests on.

    Raises:
        ValueError: no guess or more guesses than canaries, a delta or a confidence outside [0, 1) and (0, 1), scores
            that are not finite or not as many as the coins.
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
        checked(scores, included)
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
    """The one-run audit of one half of the canaries, with the counts of guesses that did best on the other half.

    The canaries of the first half, their coins once seen, are fixed records of the training set to the second.

    Args:
        scores, included, delta, confidence: as for `OneRunAudit`.
        generator: draws the halves.

    Returns:
        The bound from the second half; its `canaries` are those of that half.

    Raises:
        ValueError: as for `OneRunAudit`, or fewer than 4 canaries.
    """
    checked(scores, included)
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
    """How likely so many right guesses are, at most, if the training is (epsilon, delta)-DP (theorem 5.2).

    The right guesses are then no more than Binomial(guesses, e^epsilon / (1 + e^epsilon)) but for failures that delta
    allows: P[B >= v] + 2 m delta max_i P[v > B >= v - i] / i, with v right ones of m canaries.
    """
    rate = float(expit(epsilon))
    by_luck = tail(correct, guesses, rate)
    if delta == 0:
        return by_luck
    failures = np.arange(1, correct + 1)  # that would have to help
    short = bdtrc(correct - failures - 1.0, guesses, rate) - by_luck
    return min(1.0, by_luck + 2 * canaries * delta * float((short / failures).max(initial=0.0)))


@lru_cache(maxsize=4096)  # a choice of counts, or a simulation, comes back to the same counts again and again
def lower_bound(correct: int, guesses: int, canaries: int, delta: float, confidence: float = 0.95) -> float:
    """The epsilon below which so many right guesses would be a surprise, 0 where there is none.

    Args:
        correct: guesses that were right, from 0 to `guesses`.
        guesses: how many were made, from 1 to `canaries`.
        canaries: how many records tossed a fair coin of their own.
        delta, confidence: as for `OneRunAudit`.

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
    """The most that so many canaries can certify: the bound where every one of them is guessed right.

    Without delta it is log(p / (1 - p)) with p = (1 - confidence)^(1 / canaries).
    """
    return lower_bound(canaries, canaries, canaries, delta, confidence)


def checked(scores: Tensor, included: Tensor) -> None:
    """Refuse scores that are no score for each coin."""
    if included.dtype != torch.bool or scores.ndim != 1 or included.shape != scores.shape or not len(scores):
        raise ValueError(
            f"need a score (m,) and a coin, bool (m,), for each canary, "
            f"got {tuple(scores.shape)} and {included.dtype} {tuple(included.shape)}"
        )
    if not scores.isfinite().all():
        raise ValueError("scores must be finite, got NaN or infinity: clamp the confidences before the logarithm")
