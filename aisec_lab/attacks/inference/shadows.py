"""The base of attacks by shadow models: Gaussian fits of a record's signals with and without it in training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianFit:
    """Gaussians fitted to the signals of the models of one side: those trained on a record, or those not. In float64.

    Args:
        mean: of each record (T, N), a row for each of T sets of shadow models; the mean over the other records where a
            record has no model on this side, NaN where no record has one.
        variance: about that mean, of each record (T, N).
        pooled: variance of all records together (T, 1).
    """

    mean: Tensor
    variance: Tensor
    pooled: Tensor

    @classmethod
    def of(cls, signals: Tensor, side: Tensor, own: Tensor) -> "GaussianFit":
        """Fit the Gaussians in closed form.

        Args:
            signals: of K models on N records (K, N), float64.
            side: which of them are on this side (K, N), bool.
            own: for each of T sets, for which records model t is on this side but left out, since it is the target
                (T, N), bool.

        Returns:
            The fits of the T sets.
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

    def checked(self) -> "GaussianFit":
        """The same fit; ValueError where no record has a model on this side."""
        if self.mean.isnan().any():
            raise ValueError(
                "no shadow model on a side that the attack needs: train some on records under attack and some without, "
                "or take an offline attack"
            )
        return self


class ShadowAttack(ABC):
    """A membership inference attack by shadow models, whose training sets the attacker knows.

    It compares the target's signals (`Signal`) with those of the shadow models. Call contract:
    docs/inference-attacks.md. A subclass implements `_score`.
    """

    def __call__(self, target: Tensor, signals: Tensor, included: Tensor) -> Tensor:
        """Score the records of one target model.

        Args:
            target: signals of the model under attack (N,), one for each record; larger for members.
            signals: signals of K shadow models on the same records (K, N).
            included: whether shadow model k was trained on record i (K, N), bool.

        Returns:
            Scores (N,), float64; larger means "was in the target's training set". One threshold may serve all records.

        Raises:
            ValueError: shapes that do not fit, signals that are not finite, or no shadow model on a side that the
                attack needs.
        """
        check_signals(signals, included)
        if target.shape != signals.shape[1:] or not torch.isfinite(target).all():
            raise ValueError(
                f"the target needs a finite signal for each of the {signals.shape[1]} records of its shadows, got "
                f"{tuple(target.shape)}"
            )
        own = torch.zeros(1, signals.shape[1], dtype=torch.bool)
        target, values = self._values(target.double()), self._values(signals.double())
        fits = (GaussianFit.of(values, side, own) for side in (included, ~included))
        return self._score(target[None], *fits, shadows=len(signals))[0]

    def leave_one_out(self, signals: Tensor, included: Tensor) -> Tensor:
        """Score K models, each as the target with the K - 1 others as its shadow models.

        Args:
            signals: of the K models on the same records (K, N).
            included: whether model k was trained on record i (K, N), bool. A target's own row does not affect its
                scores.

        Returns:
            Scores (K, N), float64, row k as the call would give them for model k.

        Raises:
            ValueError: shapes that do not fit, signals that are not finite, or no shadow model on a side that the
                attack needs.
        """
        check_signals(signals, included)
        values = self._values(signals.double())
        fits = (GaussianFit.of(values, side, side) for side in (included, ~included))
        return self._score(values, *fits, shadows=len(signals) - 1)

    def _values(self, signals: Tensor) -> Tensor:
        """The values that Gaussians are fitted to; the signals themselves by default."""
        return signals

    @abstractmethod
    def _score(self, target: Tensor, inside: GaussianFit, outside: GaussianFit, *, shadows: int) -> Tensor:
        """Scores (T, N) of targets (T, N), from the fits of their own shadow models."""


def check_signals(signals: Tensor, included: Tensor) -> None:
    """Refuse, with a ValueError, signals that are not finite (K, N), or a mask that is not bool of their shape."""
    if signals.ndim != 2 or included.dtype != torch.bool or included.shape != signals.shape:
        raise ValueError(
            f"signals must be (K, N) and included bool of the same shape, got {tuple(signals.shape)} and "
            f"{included.dtype} {tuple(included.shape)}"
        )
    if not torch.isfinite(signals).all():
        raise ValueError("signals must be finite: take them from a Signal, which is so for all finite logits")
