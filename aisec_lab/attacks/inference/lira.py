"""LiRA, the likelihood-ratio attack: Gaussian signals of models trained with and without each record."""

import math
from dataclasses import dataclass

from torch import Tensor

from aisec_lab.attacks.inference.shadows import GaussianFit, ShadowAttack

TINY = 1e-12  # keeps a variance of zero from dividing by zero


@dataclass(frozen=True)
class LiRA(ShadowAttack):
    """Online LiRA: the log likelihood ratio of a record's signal (Carlini et al., 2022, algorithm 1).

    arXiv:2112.03570. Gaussians are fitted to the signals of shadow models that were trained on the record and of those
    that were not. The paper's signal is `ScaledLogitSignal`. Call contract: docs/inference-attacks.md.

    Args:
        pooled: with up to so many shadow models, all records share one variance on each side (section VI-B); with more,
            each record has its own.
    """

    pooled: int = 64

    def _score(self, target: Tensor, inside: GaussianFit, outside: GaussianFit, *, shadows: int) -> Tensor:
        own = shadows > self.pooled
        return _log_density(target, inside.checked(), own) - _log_density(target, outside.checked(), own)


@dataclass(frozen=True)
class OfflineLiRA(ShadowAttack):
    """Offline LiRA: how far a record's signal exceeds that of models trained without it (Carlini et al., 2022, eq. 4).

    arXiv:2112.03570. No shadow model needs to be trained on the records under attack; those that were are ignored. The
    score is the distance from the mean in standard deviations; the normal distribution function of it is the paper's
    1 - Pr[Z > signal]. The paper's signal is `ScaledLogitSignal`. Call contract: docs/inference-attacks.md.

    Args:
        pooled: with up to so many shadow models, all records share one variance (section VI-B); with more, each record
            has its own.
    """

    pooled: int = 64

    def _score(self, target: Tensor, inside: GaussianFit, outside: GaussianFit, *, shadows: int) -> Tensor:
        return (target - outside.checked().mean) / _variance(outside, shadows > self.pooled).sqrt()


def _variance(fit: GaussianFit, own: bool) -> Tensor:
    """Each record's own variance, or the pooled one."""
    return (fit.variance if own else fit.pooled).clamp(min=TINY)


def _log_density(value: Tensor, fit: GaussianFit, own: bool) -> Tensor:
    """The logarithm of the fitted Gaussian density."""
    variance = _variance(fit, own)
    return -0.5 * ((value - fit.mean).square() / variance + variance.log() + math.log(2 * math.pi))
