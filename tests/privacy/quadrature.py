"""The privacy loss of a sampled Gaussian mechanism, integrated directly: no accountant of anybody's."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import ndtr

from aisec_lab.privacy.accounting import SampledGaussian

Array = NDArray[np.float64]
WIDTH = 12  # standard deviations of the noise; outside lies 1e-32
POINTS = {2: 20_000, 3: 1_500}  # of each nested sum, by the number of steps
MANY = 400  # frequencies at a time


def density(step: SampledGaussian, x: Array) -> Array:
    """Of a noisy sum of `x` clipping norms where the row is not among those that may be sampled."""
    return np.exp(-(x**2) / (2 * step.sigma**2)) / (step.sigma * math.sqrt(2 * math.pi))


def loss(step: SampledGaussian, x: Array) -> Array:
    """Log of the density where it is, over the one where it is not."""
    return np.log1p(step.q * np.expm1((2 * x - 1) / (2 * step.sigma**2)))


def delta_of_one(step: SampledGaussian, epsilon: float) -> float:
    """The larger hockey-stick divergence at `epsilon`: with the row over without it, or without over with."""

    def excess(x: float, sign: int) -> float:
        at = np.array(x)
        ratio = math.exp(loss(step, at))
        return float(
            density(step, at) * max(0.0, ratio - math.exp(epsilon) if sign == 1 else 1 - math.exp(epsilon) * ratio)
        )

    edges = np.arange(-WIDTH, WIDTH + 1) * step.sigma
    points = sorted({*edges, *(edges + 1), *_thresholds(step, np.array([epsilon, -epsilon])).tolist()} - {-math.inf})
    return max(
        math.fsum(quad(excess, *pair, args=(sign,), epsabs=1e-15, epsrel=1e-10)[0] for pair in pairwise(points))
        for sign in (1, -1)
    )


def delta_of_few(steps: Sequence[SampledGaussian], epsilon: float) -> float:
    """The same for two or three steps: nested sums over the outcomes of all but the last."""
    return max(float(_divergence(steps, np.array(epsilon), sign, POINTS[len(steps)])) for sign in (1, -1))


def delta_of_many(step: SampledGaussian, epsilon: float) -> float:
    """The same for many equal steps: the loss's characteristic function, inverted (Gil-Pelaez, 1951)."""
    x = np.linspace(-WIDTH * step.sigma, 1 + WIDTH * step.sigma, 4001)
    without = density(step, x) * (x[1] - x[0])
    within = without * np.exp(loss(step, x))
    found = []
    for sign, upper, lower in ((1, within, without), (-1, without, within)):
        above = [_tail(weights, sign * loss(step, x), step.steps, epsilon) for weights in (upper, lower)]
        found.append(above[0] - math.exp(epsilon) * above[1])
    return max(found)


def _divergence(steps: Sequence[SampledGaussian], epsilon: Array, sign: int, points: int) -> Array:
    """At each epsilon, with the row over without it (`sign` 1), or without over with (-1)."""
    first, *others = steps
    if not others:
        ends = _thresholds(first, sign * epsilon)
        side = -sign * ends / first.sigma, -sign * (ends - 1) / first.sigma
        without = ndtr(side[0])  # of the outcomes whose loss is above epsilon
        within = (1 - first.q) * without + first.q * ndtr(side[1])
        return within - np.exp(epsilon) * without if sign == 1 else without - np.exp(epsilon) * within
    x = np.linspace(-WIDTH * first.sigma, 1 + WIDTH * first.sigma, points)
    weights = density(first, x) * (x[1] - x[0]) * (np.exp(loss(first, x)) if sign == 1 else 1)
    return _divergence(others, epsilon[..., None] - sign * loss(first, x), sign, points) @ weights


def _thresholds(step: SampledGaussian, losses: Array) -> Array:
    """The outcomes with these losses; -inf where all losses are larger."""
    inner = np.expm1(losses) / step.q + 1
    return step.sigma**2 * np.log(inner, where=inner > 0, out=np.full_like(inner, -np.inf)) + 0.5


def _tail(weights: Array, losses: Array, count: int, epsilon: float) -> float:
    """The probability that a sum of `count` losses lies above `epsilon`."""
    step = math.pi / (abs(epsilon) + 30)  # what lies beyond a sum of 30 is nothing
    total, start = 0.5, 0
    while True:
        numbers = start + np.arange(MANY) + 0.5
        terms = (np.exp(1j * step * np.outer(numbers, losses)) @ weights) ** count * np.exp(
            -1j * step * epsilon * numbers
        )
        total += float(np.sum(terms.imag / (math.pi * numbers)))
        start += MANY
        if np.abs(terms[-50:]).max() < 1e-15:
            return total
