"""Losses that an untargeted attack maximises: logits (N, K) and classes y (N,) to one number for each row, (N,)."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor

from aisec_lab.attacks.evasion.search.goals import FLOOR, detector_aware_margin, logit_margin

TINY = 1e-12  # as in Croce & Hein's denominators


class Loss(Protocol):
    """A loss of logits (N, K) against classes y (N,)."""

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Compute the loss of each row.

        Args:
            logits: (N, K).
            y: classes (N,), int64; probabilities (N, K) for `KullbackLeibler`, true values (N,) of a regression.

        Returns:
            Shape (N,), with the graph of `logits`.
        """
        ...


class TargetedLoss(Protocol):
    """A loss of logits (N, K) that grows from true classes y (N,) towards classes `target` (N,)."""

    def __call__(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each row.

        Args:
            logits: (N, K).
            y: true classes (N,), int64.
            target: target classes (N,), int64, other than `y`.

        Returns:
            Shape (N,), with the graph of `logits`.
        """
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Minus the log-probability of class y.

    Its gradient vanishes where the model is very confident. That of `DLR` does not.
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of each row.

        Args:
            logits: (N, K).
            y: true classes (N,), int64.

        Returns:
            Shape (N,), at least 0.
        """
        return F.cross_entropy(logits.clamp(min=FLOOR), y, reduction="none")


@dataclass(frozen=True)
class KullbackLeibler:
    """KL(y || softmax(logits)) for probabilities y (N, K), as in TRADES (Zhang et al., 2019, arXiv:1901.08573)."""

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of each row.

        Args:
            logits: (N, K).
            y: probabilities (N, K), such as those of the clean inputs.

        Returns:
            Shape (N,), at least 0.
        """
        return F.kl_div(logits.clamp(min=FLOOR).log_softmax(1), y, reduction="none").sum(1)


@dataclass(frozen=True)
class Margin:
    """max_{i != y} z_i - z_y, the margin of Carlini & Wagner (2017, arXiv:1608.04644, f_6) without a bound."""

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of each row.

        Args:
            logits: (N, K).
            y: true classes (N,), int64.

        Returns:
            Shape (N,), positive where another class is predicted.
        """
        return -logit_margin(logits, y)


@dataclass(frozen=True)
class DetectorAwareMargin:
    """Minus `detector_aware_margin`, for models whose last column is the reject option.

    The loss of an attack that knows the detector (Carlini & Wagner, 2017, arXiv:1705.07263).
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of each row.

        Args:
            logits: (N, K + 1); the last column is the reject option.
            y: true classes (N,), int64.

        Returns:
            Shape (N,), positive where another class is predicted and the row is not rejected.
        """
        return -detector_aware_margin(logits, y)


@dataclass(frozen=True)
class AbsoluteError:
    """|f(x) - y| of a regression. Its gradient pushes the output in the direction of the error that it has already."""

    real: ClassVar[bool] = True

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of each row.

        Args:
            logits: the regression's outputs (N, 1).
            y: true values (N,), floats.

        Returns:
            Shape (N,), at least 0.
        """
        return (logits.squeeze(1) - y).abs()


@dataclass(frozen=True)
class SignedError:
    """f(x) - y of a regression, or y - f(x). The stronger of the two attacks finds the largest error.

    Args:
        upwards: True for f(x) - y, whose attack raises the output; False for y - f(x), whose attack lowers it.
    """

    upwards: bool = True
    real: ClassVar[bool] = True

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of each row.

        Args:
            logits: the regression's outputs (N, 1).
            y: true values (N,), floats.

        Returns:
            Shape (N,), positive where the error has the direction of `upwards`.
        """
        residual = logits.squeeze(1) - y
        return residual if self.upwards else -residual


@dataclass(frozen=True)
class DLR:
    """The difference of logits ratio, invariant to shift and scale (Croce & Hein, 2020, arXiv:2003.01690, eq. 6).

    Raises:
        ValueError: fewer than 3 classes.
    """

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of each row.

        Args:
            logits: (N, K).
            y: true classes (N,), int64.

        Returns:
            Shape (N,), in [-1, 0] where class y is predicted and positive where another class is.
        """
        _check_classes(logits, 3, "DLR", "Margin")
        top = logits.clamp(min=FLOOR).sort(dim=1, descending=True).values
        return -logit_margin(logits, y) / (top[:, 0] - top[:, 2] + TINY)


@dataclass(frozen=True)
class TargetedMargin:
    """z_t - z_y, the logit of the target minus that of the true class (Gowal et al., 2019, arXiv:1910.09338).

    It needs two classes only.
    """

    def __call__(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """The loss of each row.

        Args:
            logits: (N, K).
            y: true classes (N,), int64.
            target: target classes (N,), int64, other than `y`.

        Returns:
            Shape (N,), positive where the target has the larger logit.
        """
        logits = logits.clamp(min=FLOOR)
        return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)


@dataclass(frozen=True)
class TargetedDLR:
    """The targeted difference of logits ratio (Croce & Hein, 2020, arXiv:2003.01690, eq. 7).

    Raises:
        ValueError: fewer than 4 classes.
    """

    def __call__(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """The loss of each row.

        Args:
            logits: (N, K).
            y: true classes (N,), int64.
            target: target classes (N,), int64, other than `y`.

        Returns:
            Shape (N,), positive where the target has the larger logit.
        """
        _check_classes(logits, 4, "TargetedDLR", "TargetedMargin")
        top = logits.clamp(min=FLOOR).sort(dim=1, descending=True).values
        return TargetedMargin()(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def _check_classes(logits: Tensor, classes: int, loss: str, instead: str) -> None:
    """Refuse models with too few classes for a loss."""
    if logits.shape[1] < classes:
        raise ValueError(f"{loss} needs at least {classes} classes, the model has {logits.shape[1]}: use {instead}")
