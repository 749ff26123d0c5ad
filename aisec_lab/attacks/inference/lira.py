"""The likelihood-ratio attack: a normal law for each record with it and without it."""

import math
from dataclasses import dataclass

from torch import Tensor

from aisec_lab.attacks.inference.shadows import GaussianFit, ShadowAttack

TINY = 1e-12  # keeps a variance of zero from dividing by zero


@dataclass(frozen=True)
class LiRA(ShadowAttack):
    """How much likelier a record's signal is among models trained on it (Carlini et al., 2022, algorithm 1).

    arXiv:2112.03570. The signal is `ScaledLogitSignal`. Shadow models are trained on a record and without it (online).

    Args:
        pooled: up to so many shadow models, all records share a variance on each side (section VI-B); with more, each
            has its own.

    Args of the call, returns, raises: as for `ShadowAttack`; the score is the logarithm of the likelihood ratio.
    """

    pooled: int = 64

    def _score(self, target: Tensor, inside: GaussianFit, outside: GaussianFit, *, shadows: int) -> Tensor:
        own = shadows > self.pooled
        return _log_density(target, inside.known(), own) - _log_density(target, outside.known(), own)


@dataclass(frozen=True)
class OfflineLiRA(ShadowAttack):
    """How far a record's signal lies above those of models without it (Carlini et al., 2022, eq. 4).

    arXiv:2112.03570. The signal is `ScaledLogitSignal`. No shadow model need be trained on the records under attack,
    and those that are do not count.

    Args:
        pooled: as for `LiRA`.

    Args of the call, returns, raises: as for `ShadowAttack`; the score is the distance in standard deviations, whose
        normal distribution function is the paper's 1 - Pr[Z > signal].
    """

    pooled: int = 64

    def _score(self, target: Tensor, inside: GaussianFit, outside: GaussianFit, *, shadows: int) -> Tensor:
        return (target - outside.known().mean) / _variance(outside, shadows > self.pooled).sqrt()


def _variance(spread: GaussianFit, own: bool) -> Tensor:
    return (spread.variance if own else spread.pooled).clamp(min=TINY)


def _log_density(value: Tensor, spread: GaussianFit, own: bool) -> Tensor:
    variance = _variance(spread, own)
    return -0.5 * ((value - spread.mean).square() / variance + variance.log() + math.log(2 * math.pi))
