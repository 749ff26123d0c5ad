"""Membership signals: one number for a model's output on a record, larger for members.

A threshold on a signal is an attack by itself. Attacks by shadow models compare it with the signals of their models.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.attacks.answers import check_not_probabilities


class Signal(Protocol):
    """A membership signal: a frozen dataclass that is called on logits.

    Call contract: docs/inference-attacks.md.
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Compute the signal of each record.

        Args:
            logits: of one model (N, C), or of K models (K, N, C), with C >= 2; any float type.
            y: true classes of the records (N,), int64.

        Returns:
            Signals (N,) or (K, N), float64, finite; larger means "was in the training set".

        Raises:
            ValueError: logits that are not finite or are probabilities, shapes that do not fit, or classes outside
                0..C-1.
        """
        ...


@dataclass(frozen=True)
class LossSignal:
    """The negative cross-entropy: the threshold attack of Yeom et al. (2018, arXiv:1709.01604, adversary 2).

    It is the logarithm of the true class's probability. Call contract: docs/inference-attacks.md.
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.logsigmoid(_true(scaled_logits(logits, y), y))


@dataclass(frozen=True)
class ConfidenceSignal:
    """The largest probability of any class (Salem et al., 2019, arXiv:1806.01246, section 5).

    Its logarithm is returned, which keeps the order also where probabilities round to 1. The true class is not used.
    Call contract: docs/inference-attacks.md.
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.logsigmoid(scaled_logits(logits, y).amax(-1))


@dataclass(frozen=True)
class EntropySignal:
    """The negative entropy of the probabilities in nats (Salem et al., 2019, arXiv:1806.01246, section 5).

    The true class is not used. Call contract: docs/inference-attacks.md.
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        each = scaled_logits(logits, y)
        return (each.sigmoid() * F.logsigmoid(each)).sum(-1)


@dataclass(frozen=True)
class ModifiedEntropySignal:
    """The negative modified entropy, which uses the true class (Song & Mittal, 2021, arXiv:2003.10595, eq. 8).

    A confident prediction has a small modified entropy if it is correct, and a large one if it is wrong.
    Call contract: docs/inference-attacks.md.
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        each = scaled_logits(logits, y)
        true = _true(each, y)
        wrong = each.sigmoid() * F.logsigmoid(-each)  # p log(1 - p) of each class (…, N, C)
        others = wrong.scatter(-1, _index(wrong, y), 0.0).sum(-1)
        return (-true).sigmoid() * F.logsigmoid(true) + others


@dataclass(frozen=True)
class ScaledLogitSignal:
    """log(p / (1 - p)) of the true class, nearly normal over models (Carlini et al., 2022, arXiv:2112.03570, VI-A).

    Call contract: docs/inference-attacks.md.
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return _true(scaled_logits(logits, y), y)


def scaled_logits(logits: Tensor, y: Tensor) -> Tensor:
    """log(p / (1 - p)) of every class: its logit minus the log-sum-exp of all others.

    No probability is rounded to 0 or 1, so that signals also order the most confident predictions.

    Args:
        logits: of one model (N, C), or of K models (K, N, C), with C >= 2; any float type.
        y: true classes of the records (N,), int64; they are only checked.

    Returns:
        Scaled logits, shape of `logits`, float64, finite.

    Raises:
        ValueError: logits that are not finite or are probabilities, shapes that do not fit, or classes outside 0..C-1.
    """
    if logits.ndim not in (2, 3) or logits.shape[-1] < 2 or logits.shape[-2:-1] != y.shape:
        raise ValueError(
            f"logits must be (N, C) or (K, N, C) with C >= 2 and classes (N,), got {tuple(logits.shape)} and "
            f"{tuple(y.shape)}"
        )
    if not torch.isfinite(logits).all():
        raise ValueError("logits must be finite, got some that are not: give logits, not logarithms of rounded answers")
    if not (y.min() >= 0 and y.max() < logits.shape[-1]):
        raise ValueError(f"classes must lie in 0..{logits.shape[-1] - 1}, got {y.min()}..{y.max()}")
    check_not_probabilities(logits)
    z = logits.double()
    top = z.max(-1, keepdim=True)
    shifted = z - top.values
    parts = shifted.exp()
    others = (parts.sum(-1, keepdim=True) - parts).log()  # of a class that is not the largest, at most half cancels
    largest = shifted.scatter(-1, top.indices, -torch.inf).logsumexp(-1, keepdim=True)
    return shifted - others.scatter(-1, top.indices, largest)


def _index(values: Tensor, y: Tensor) -> Tensor:
    """Classes y (N,) as an index (…, N, 1) into values (…, N, C)."""
    return y.expand(values.shape[:-1])[..., None]


def _true(values: Tensor, y: Tensor) -> Tensor:
    """The true classes' values (…, N) of values (…, N, C)."""
    return values.gather(-1, _index(values, y))[..., 0]
