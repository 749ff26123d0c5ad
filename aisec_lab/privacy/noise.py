"""Integer noise for private counts: OpenDP's for a release, the same distribution from a seed for a study."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Cells = NDArray[np.int64]

TAIL = 0.025  # probability on either side of a 95 % interval
NORMAL = 1.959964  # a standard normal exceeds this with probability TAIL
CHEBYSHEV = (2 * TAIL) ** -0.5  # no symmetric distribution of variance 1 exceeds this with a larger probability
TINY = 1e-300
COARSE = 1000.0  # at larger scales we stretch the distribution of this scale: the same to six digits


@dataclass(frozen=True)
class ReleaseNoise:
    """Integer noise for a table of counts: OpenDP's discrete Laplace or, with a delta, its discrete Gaussian.

    Canonne et al. (2020, arXiv:2004.00010), definition 1 for the Gaussian and section 5.2 for the Laplace.

    Args:
        epsilon: positive and finite.
        delta: 0 for the Laplace, else in (0, 1).
        unit: sensitivity of the table to one row in L1, which also bounds it in L2; a positive integer.

    Raises:
        ValueError: an epsilon or delta out of range.
    """

    epsilon: float
    delta: float = 0.0
    unit: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon must be positive and finite, got {self.epsilon}")
        if not 0 <= self.delta < 1:
            raise ValueError(f"delta must be 0 for Laplace noise, or below 1 / rows for Gaussian, got {self.delta}")

    @property
    def name(self) -> str:
        """Name of the distribution."""
        return "discrete Gaussian" if self.delta else "discrete Laplace"

    @cached_property
    def scale(self) -> float:
        """The smallest scale that OpenDP allows; P(z) is proportional to exp(-|z|/scale) or exp(-z^2/(2 scale^2))."""
        from opendp.mod import binary_search_param

        target = (self.epsilon, self.delta) if self.delta else self.epsilon
        return self.unit * binary_search_param(self._mechanism, d_in=1, d_out=target)  # exact for a power of two

    def _mechanism(self, scale: float) -> Any:
        from opendp import combinators, domains, measurements, metrics
        from opendp.mod import enable_features

        enable_features("contrib")
        table = domains.vector_domain(domains.atom_domain(T="i64"))
        if not self.delta:
            return measurements.make_laplace(table, metrics.l1_distance(T="i64"), scale)
        gaussian = measurements.make_gaussian(table, metrics.l2_distance(T="i64"), scale)
        return combinators.make_fix_delta(combinators.make_zCDP_to_approxDP(gaussian), self.delta)

    def add(self, cells: Cells) -> Cells:
        """Cells of any shape, int64, plus noise from the operating system, which cannot be repeated."""
        noisy = self._mechanism(self.scale)(cells.ravel().tolist())
        return np.array(noisy, dtype=np.int64).reshape(cells.shape)

    def simulate(self, cells: Cells, generator: torch.Generator) -> Cells:
        """Cells of any shape, int64, plus noise of the same distribution from a generator; not for a release."""
        draw = _gaussian if self.delta else _laplace
        return np.asarray(cells + draw(cells.size, self.scale, generator).numpy().reshape(cells.shape))

    @cached_property
    def pmf(self) -> tuple[Cells, Floats]:
        """Integers (Z,) of no negligible probability, and their probabilities, for a scale of at most `COARSE`."""
        scale = min(self.scale, COARSE)
        far = math.ceil(40 * scale) + 5
        z = np.arange(-far, far + 1)
        weight = np.exp(-(z**2) / (2 * scale**2) if self.delta else -np.abs(z) / scale)
        return z, weight / weight.sum()

    @cached_property
    def error(self) -> tuple[float, float, int]:
        """Standard deviation, expected absolute value, and the least integer with at least 95 % of draws within it."""
        (z, p), stretch = self.pmf, max(self.scale / COARSE, 1.0)
        within = np.cumsum(p)[len(z) // 2 :] >= 1 - TAIL
        reach = math.ceil(stretch * int(within.argmax()))
        return stretch * float(z**2 @ p) ** 0.5, stretch * float(np.abs(z) @ p), reach

    def error_of_sum(self, powers: Callable[[int], Floats]) -> tuple[Floats, Floats, Floats]:
        """The error of a weighted sum of independent draws.

        Args:
            powers: function of k that returns the sum of the k-th powers of the weights' magnitudes, any shape.

        Returns:
            Standard deviation, expected absolute value and the 97.5 % quantile, each of the shape that `powers` gives.
            The last two are approximations to the fourth cumulant (Edgeworth; Cornish and Fisher). Half a draw is added
            to the quantile, since draws are integers.
        """
        (z, p), (one, size, _) = self.pmf, self.error
        kurtosis = (float(z**4 @ p) / max(float(z**2 @ p) ** 2, TINY) - 3) * powers(4) / powers(2) ** 2
        deviation = one * powers(2) ** 0.5
        expected = deviation * (2 / math.pi) ** 0.5 * (1 - np.minimum(kurtosis, 3) / 24)  # 3: the continuous Laplace's
        tail = NORMAL + (NORMAL**3 - 3 * NORMAL) * kurtosis / 24
        return deviation, np.minimum(expected, size * powers(1)), deviation * np.minimum(tail, CHEBYSHEV) + 0.5


def _laplace(n: int, scale: float, generator: torch.Generator) -> torch.Tensor:
    """Discrete Laplace draws (n,), int64, as differences of two geometric variables."""
    uniform = 1 - torch.rand(2, n, generator=generator, dtype=torch.float64)  # in (0, 1]
    steps = (-scale * uniform.log()).floor().long()
    return steps[0] - steps[1]


def _gaussian(n: int, scale: float, generator: torch.Generator) -> torch.Tensor:
    """Discrete Gaussian draws (n,), int64, by rejection from the Laplace (Canonne et al., 2020, algorithm 3)."""
    kept, wide = torch.empty(0, dtype=torch.int64), math.floor(scale) + 1
    while len(kept) < n:
        z = _laplace(n, wide, generator)
        odds = (-((z.abs() - scale**2 / wide) ** 2) / (2 * scale**2)).exp()
        kept = torch.cat([kept, z[torch.rand(n, generator=generator, dtype=torch.float64) < odds]])
    return kept[:n]
