"""The robust attack: a record's likelihood ratio against those of other records."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.attacks.inference.shadows import GaussianFit, ShadowAttack

TINY = 1e-300  # keeps a probability that underflows from making 0 / 0


class PairwiseRatios(ShadowAttack):
    """What the two forms of RMIA share: they differ in what they take for a record's probability without a target."""

    gamma: float

    def _values(self, signals: Tensor) -> Tensor:
        if (signals > 0).any():
            raise ValueError(
                f"the signals must be logarithms of probabilities, got one of {signals.max():g}: use LossSignal"
            )
        return signals.exp().clamp(min=TINY)

    def _score(self, target: Tensor, inside: GaussianFit, outside: GaussianFit, *, shadows: int) -> Tensor:
        ratio = target / self._marginal(inside, outside).clamp(min=TINY)  # (T, N), of x and of all z
        ordered = ratio.sort(dim=1).values
        beaten = torch.searchsorted(ordered, ratio / self.gamma, right=True)  # z with ratio(x) >= gamma ratio(z)
        return beaten.double() / ratio.shape[1]

    @abstractmethod
    def _marginal(self, inside: GaussianFit, outside: GaussianFit) -> Tensor:
        """The probability (T, N) of a record's class, averaged over models with and without it."""


@dataclass(frozen=True)
class RMIA(PairwiseRatios):
    """How many other records a record's likelihood ratio beats (Zarifzadeh et al., 2024, equations 2 and 3).

    arXiv:2312.03262. The score is the share of records z with [p(x|target) / p(x)] / [p(z|target) / p(z)] >= gamma,
    where p(x) is the mean over shadow models with x and without. The signal is `LossSignal`. The population z are the
    records under attack themselves, members among them, which does not change the order of a target's scores.

    Args:
        gamma: how clearly z must be beaten, at least 1. It only matters where several targets share a threshold.

    Args of the call, returns, raises: as for `ShadowAttack`; signals above 0 are refused too.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def _marginal(self, inside: GaussianFit, outside: GaussianFit) -> Tensor:
        return (inside.known().mean + outside.known().mean) / 2


@dataclass(frozen=True)
class OfflineRMIA(PairwiseRatios):
    """RMIA whose shadow models were not trained on the records (Zarifzadeh et al., 2024, appendix B.2.2).

    p(x) is ((1 + a) p_out + 1 - a) / 2, a line through certainty: what all models know, a member's model knows too.

    Args:
        a: how little training on a record adds to its probability, from 0, where it makes it certain, to 1.
        gamma: as for `RMIA`.

    Args of the call, returns, raises: as for `RMIA`.
    """

    a: float = 0.3
    gamma: float = 1.0

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)
        if not 0 <= self.a <= 1:
            raise ValueError(f"a must lie in [0, 1], got {self.a}")

    def _marginal(self, inside: GaussianFit, outside: GaussianFit) -> Tensor:
        return ((1 + self.a) * outside.known().mean + 1 - self.a) / 2


def _check_gamma(gamma: float) -> None:
    if not gamma >= 1:
        raise ValueError(f"gamma must be at least 1, got {gamma}")
