"""What attacks by shadow models share: how a record's signal spreads over the models that did and did not see it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianFit:
    """The signals of the models on one side, trained on a record or not, in float64.

    Args:
        mean: of each record (T, N), a row for each set of shadow models; where a record has no model on this side, the
            mean over the other records; NaN where there is no model on this side at all.
        variance: about that mean, of each record (T, N).
        pooled: the same of all records together (T, 1).
    """

    mean: Tensor
    variance: Tensor
    pooled: Tensor

    @classmethod
    def of(cls, signals: Tensor, side: Tensor, own: Tensor) -> "GaussianFit":
        """The spread of signals (K, N) over the models where `side` (K, N) is true, in closed form.

        `own` (T, N) says of each set which records' signals, in `signals[t]`, must not count, since they are the
        target's.
        """
        n = side.sum(0).double()
        mean = (signals * side).sum(0) / n.clamp(min=1)
        squares = ((signals - mean).square() * side).sum(0)
        far = torch.where(own, signals[: len(own)] - mean, 0.0)  # (T, N)
        left = n - own.double()
        mean = mean - far / left.clamp(min=1)
        squares = (squares - far.square() * n / left.clamp(min=1)).clamp(min=0) * (left > 1)
        there = left > 0
        usual = (mean * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)
        pooled = squares.sum(1, keepdim=True) / left.sum(1, keepdim=True)
        return cls(torch.where(there, mean, usual), squares / left.clamp(min=1), pooled)

    def known(self) -> "GaussianFit":
        """The same; a ValueError where there is no model on this side, for an attack that needs one."""
        if self.mean.isnan().any():
            raise ValueError(
                "no shadow model on a side that the attack needs: train some on records under attack and some without, "
                "or take an offline attack"
            )
        return self


class ShadowAttack(ABC):
    """An attack that compares a target's signals with those of shadow models, whose training sets the attacker knows.

    Args of the call:
        target: signals of the model under attack (N,), one for each record; bigger for members.
        signals: the shadow models' signals on the same records (K, N).
        included: whether a shadow model was trained on a record (K, N), bool.

    Returns:
        Scores (N,), float64; bigger means "was in the target's training set". One threshold may serve all records.

    Raises:
        ValueError: shapes that do not fit, signals that are not finite, or no shadow model on one of the sides.
    """

    def __call__(self, target: Tensor, signals: Tensor, included: Tensor) -> Tensor:
        check_signals(signals, included)
        if target.shape != signals.shape[1:] or not torch.isfinite(target).all():
            raise ValueError(
                f"the target needs a finite signal for each of the {signals.shape[1]} records of its shadows, got "
                f"{tuple(target.shape)}"
            )
        own = torch.zeros(1, signals.shape[1], dtype=torch.bool)
        target, values = self._values(target.double()), self._values(signals.double())
        spreads = (GaussianFit.of(values, side, own) for side in (included, ~included))
        return self._score(target[None], *spreads, shadows=len(signals))[0]

    def in_turn(self, signals: Tensor, included: Tensor) -> Tensor:
        """Scores (K, N) of K models, each in turn the target and the K - 1 others its shadows.

        In scoring a target nothing of it but its signals is looked at. Args, raises: as for the call.
        """
        check_signals(signals, included)
        values = self._values(signals.double())
        spreads = (GaussianFit.of(values, side, side) for side in (included, ~included))
        return self._score(values, *spreads, shadows=len(signals) - 1)

    def _values(self, signals: Tensor) -> Tensor:
        """What the spread is taken of."""
        return signals

    @abstractmethod
    def _score(self, target: Tensor, inside: GaussianFit, outside: GaussianFit, *, shadows: int) -> Tensor:
        """Scores (T, N) of targets (T, N), from the spread of their own shadow models."""


def check_signals(signals: Tensor, included: Tensor) -> None:
    """Refuse, with a ValueError, signals and coins that do not fit."""
    if signals.ndim != 2 or included.dtype != torch.bool or included.shape != signals.shape:
        raise ValueError(
            f"signals must be (K, N) and included bool of the same shape, got {tuple(signals.shape)} and "
            f"{included.dtype} {tuple(included.shape)}"
        )
    if not torch.isfinite(signals).all():
        raise ValueError("signals must be finite: take them from a Signal, which is so for all finite logits")
