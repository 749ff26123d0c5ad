"""Exposure of a canary: how much likelier a language model finds it than the other possible secrets (Secret Sharer)."""

import math
import string
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

SPAN, POINTS = 60.0, 2001  # how far below a value, in scales, and how finely its lower tail is integrated
MOST = 2_000_000  # secrets that are written out


@dataclass(frozen=True)
class Canary:
    """A text with a random secret in it, the canary's format and randomness space (Carlini et al., 2019).

    arXiv:1802.08232.

    Args:
        form: the format, with one `{}` in place of the secret.
        alphabet: the characters of a secret, at least two, each once.
        length: characters of a secret, at least 1.

    Raises:
        ValueError: a form without `{}` or with two; an alphabet of fewer than two characters or with one twice; a
            length below 1.
    """

    form: str = "the number is {}"
    alphabet: str = string.digits
    length: int = 4

    def __post_init__(self) -> None:
        distinct = len(set(self.alphabet))
        if self.form.count("{}") != 1 or distinct < 2 or distinct < len(self.alphabet) or self.length < 1:
            raise ValueError(
                "a canary has one {} in its form, an alphabet of two characters or more, each once, and a length from "
                f"1 up: got {self}"
            )

    @property
    def secrets(self) -> int:
        """|R|, the number of possible secrets."""
        return len(self.alphabet) ** self.length

    def text(self, number: int) -> str:
        """The text with secret `number`, from 0 to |R| - 1; ValueError outside this range."""
        if not 0 <= number < self.secrets:
            raise ValueError(f"secrets are numbered from 0 to {self.secrets - 1}, got {number}")
        base, letters = len(self.alphabet), []
        for _ in range(self.length):
            number, letter = divmod(number, base)
            letters.append(self.alphabet[letter])
        return self.form.replace("{}", "".join(reversed(letters)))

    def texts(self) -> list[str]:
        """The texts with all |R| secrets, in order; ValueError where there are more than two million."""
        if self.secrets > MOST:
            raise ValueError(f"there are {self.secrets} secrets, too many to write out: draw some and extrapolate")
        return [self.text(number) for number in range(self.secrets)]

    def draw(self, n: int, *, generator: torch.Generator) -> list[str]:
        """Draw texts with different secrets, each equally likely.

        Args:
            n: how many, from 0 to |R|.
            generator: source of the secrets.

        Returns:
            n texts, in the order of the draw.

        Raises:
            ValueError: a negative n, or one above |R|.
        """
        if not 0 <= n <= self.secrets:
            raise ValueError(f"there are {self.secrets} secrets, cannot draw {n} different ones")
        chosen: dict[int, None] = {}
        while len(chosen) < n:
            more = torch.randint(self.secrets, (n - len(chosen),), generator=generator)
            chosen |= dict.fromkeys(more.tolist())
        return [self.text(number) for number in chosen]


def exact_exposure(bits: ArrayLike, every: ArrayLike) -> NDArray[np.float64]:
    """Exposure by its definition, log2 |R| - log2 rank (Carlini et al., 2019, section 4.2).

    The rank is that of a canary's log-perplexity among those of all |R| secrets, the smallest first. A secret that the
    model never saw has an exposure of at least k with probability about 2^-k; its mean is 1.44, not 0.

    Args:
        bits: log-perplexities of the canaries in bits, any shape, finite.
        every: log-perplexities of the texts with all |R| secrets, those of the canaries included.

    Returns:
        Exposures in [0, log2 |R|], float64, shape of `bits`; among equals each has the largest rank.

    Raises:
        ValueError: log-perplexities that are not finite, or an empty `every`.
    """
    ordered = np.sort(_finite(every, 1))
    rank = np.searchsorted(ordered, _finite(bits, 0), side="right")
    return np.asarray(math.log2(len(ordered)) - np.log2(np.maximum(rank, 1)))


def sampled_exposure(bits: ArrayLike, references: ArrayLike) -> NDArray[np.float64]:
    """Exposure by a sample of the other secrets (Carlini et al., 2019, section 4.3).

    It is log2 n - log2(1 + how many references have no larger log-perplexity).

    Args:
        bits: log-perplexities of the canaries in bits, any shape, finite.
        references: log-perplexities of n texts with secrets that the model never saw.

    Returns:
        Exposures up to log2 n, float64, shape of `bits`. A canary below all references gets log2 n, a lower bound.

    Raises:
        ValueError: log-perplexities that are not finite, or no reference.
    """
    ordered = np.sort(_finite(references, 1))
    rank = 1 + np.searchsorted(ordered, _finite(bits, 0), side="right")
    return np.asarray(math.log2(len(ordered)) - np.log2(rank))


@dataclass(frozen=True)
class SkewNormal:
    """A skew-normal distribution of the references' log-perplexities, which extrapolates exposure beyond their number.

    Carlini et al. (2019, arXiv:1802.08232, section 4.3).

    Args:
        shape, location, scale: its parameters, as SciPy's `skewnorm` defines them.
        distance: Kolmogorov-Smirnov statistic of the fit to the n references, in [0, 1]. Above 1.36 / sqrt(n) the fit
            is rejected at 5 %, and the extrapolated exposures are not reliable.
    """

    shape: float
    location: float
    scale: float
    distance: float

    @classmethod
    def of(cls, references: ArrayLike) -> "SkewNormal":
        """Fit the distribution by maximum likelihood.

        Args:
            references: log-perplexities of n >= 10 texts with secrets that the model never saw, not all equal.

        Returns:
            The fit, with its distance.

        Raises:
            ValueError: fewer than 10 references, some that are not finite, or all equal.
        """
        from scipy.stats import kstest, skewnorm  # a second that no other stage should pay

        values = _finite(references, 10)
        if np.ptp(values) == 0:
            raise ValueError(f"all {len(values)} references need {values[0]:g} bits: there is no distribution to fit")
        shape, location, scale = map(float, skewnorm.fit(values))
        return cls(shape, location, scale, float(kstest(values, skewnorm(shape, location, scale).cdf).statistic))

    def exposure(self, bits: ArrayLike) -> NDArray[np.float64]:
        """Extrapolate exposure: -log2 P(a reference has no larger log-perplexity) (Carlini et al., 2019, section 4.3).

        The tail is integrated in logarithms, so that a memorised secret has a finite exposure.

        Args:
            bits: log-perplexities of the canaries in bits, any shape, finite.

        Returns:
            Exposures, at least 0, float64, shape of `bits`.

        Raises:
            ValueError: log-perplexities that are not finite.
        """
        from scipy.special import log_ndtr, logsumexp

        z = ((_finite(bits, 0) - self.location) / self.scale)[..., None]
        t = z - np.linspace(0, SPAN, POINTS) ** 2 / SPAN  # the tail is steep: most points near its end
        log_density = math.log(2) - t**2 / 2 - math.log(2 * math.pi) / 2 + log_ndtr(self.shape * t)
        widths = -np.gradient(t, axis=-1)
        widths[..., [0, -1]] /= 2
        return np.asarray(np.maximum(0, -logsumexp(log_density, b=widths, axis=-1) / math.log(2)))


def _finite(bits: ArrayLike, least: int) -> NDArray[np.float64]:
    """Log-perplexities as an array; ValueError where they are fewer than `least` or not finite."""
    values = np.asarray(bits, dtype=np.float64)
    if values.size < least or not np.isfinite(values).all():
        raise ValueError(f"log-perplexities must be finite, and {least} at least here: got {values.size} of them")
    return values
