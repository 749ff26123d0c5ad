"""RMIA, robust membership inference: a record's likelihood ratio against those of other records."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.attacks.inference.shadows import GaussianFit, ShadowAttack

TINY = 1e-300  # keeps a probability that underflows from making 0 / 0


class PairwiseRatios(ShadowAttack):
    """The base of online and offline RMIA, which differ in how they estimate p(x)."""

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
        below = torch.searchsorted(ordered, ratio / self.gamma, right=True)  # z with ratio(x) >= gamma ratio(z)
        return below.double() / ratio.shape[1]

    @abstractmethod
    def _marginal(self, inside: GaussianFit, outside: GaussianFit) -> Tensor:
        """p(x) (T, N): the probability of a record's class, averaged over models with and without it."""


@dataclass(frozen=True)
class RMIA(PairwiseRatios):
    """Online RMIA: the share of other records with a smaller likelihood ratio (Zarifzadeh et al., 2024, eq. 2 and 3).

    arXiv:2312.03262. The score is the share of records z with [p(x|target) / p(x)] / [p(z|target) / p(z)] >= gamma,
    where p(x) is the mean over shadow models trained with x and without it. The signal is `LossSignal`. The population
    z is the records under attack themselves, members included; this does not change the order of a target's scores.

    Call contract: docs/inference-attacks.md; a signal above 0 is refused too, since it is no log probability.

    Args:
        gamma: smallest ratio that counts, at least 1; it matters only where several targets share a threshold.

    Raises:
        ValueError: a gamma below 1.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def _marginal(self, inside: GaussianFit, outside: GaussianFit) -> Tensor:
        return (inside.checked().mean + outside.checked().mean) / 2


@dataclass(frozen=True)
class OfflineRMIA(PairwiseRatios):
    """Offline RMIA: its shadow models were not trained on the records (Zarifzadeh et al., 2024, appendix B.2.2).

    arXiv:2312.03262. p(x) is estimated as ((1 + a) p_out + 1 - a) / 2, with p_out the mean over models without x. This
    is the mean of p_out and of a p_out + 1 - a, the assumed probability after training on x.

    Call contract: docs/inference-attacks.md; a signal above 0 is refused too, since it is no log probability.

    Args:
        a: in [0, 1]: 1 if training on a record leaves its probability as it is, 0 if it raises it to 1.
        gamma: smallest ratio that counts, at least 1; it matters only where several targets share a threshold.

    Raises:
        ValueError: settings out of range.
    """

    a: float = 0.3
    gamma: float = 1.0

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)
        if not 0 <= self.a <= 1:
            raise ValueError(f"a must lie in [0, 1], got {self.a}")

    def _marginal(self, inside: GaussianFit, outside: GaussianFit) -> Tensor:
        return ((1 + self.a) * outside.checked().mean + 1 - self.a) / 2


def _check_gamma(gamma: float) -> None:
    """Refuse a gamma below 1."""
    if not gamma >= 1:
        raise ValueError(f"gamma must be at least 1, got {gamma}")
