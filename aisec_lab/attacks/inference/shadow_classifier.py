"""Membership inference by a classifier that is trained on the outputs of shadow models."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.attacks.inference.shadows import check_signals
from aisec_lab.data import Dataset
from aisec_lab.models.architectures import MLP
from aisec_lab.models.training.fit import Fit
from aisec_lab.models.training.fit_stack import ModelStack, fit_stack

SIDES = ("out", "in")


@dataclass(frozen=True)
class ShadowClassifier:
    """Attack networks, one for each class, separate members from others (Shokri et al., 2017, arXiv:1610.05820).

    Section V: their inputs are a model's probabilities for a record. They are trained together, each on the shadow
    models' outputs for records of its class.

    Args:
        hidden: widths of the attack networks' hidden layers.
        fit: how they are trained.
    """

    hidden: tuple[int, ...] = (64,)
    fit: Fit = Fit(epochs=10, batch_size=128)

    def __call__(
        self, target: Tensor, y: Tensor, shadows: Tensor, included: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Score the records of one target model.

        Args:
            target: logits of the model under attack (N, C).
            y: true classes of the records (N,), int64.
            shadows: logits of K shadow models on the same records (K, N, C).
            included: whether shadow model k was trained on record i (K, N), bool.
            generator: source of the networks' weights and of the order of rows.

        Returns:
            Log odds of membership (N,), float64.

        Raises:
            ValueError: shapes that do not fit, or logits that are not finite or are probabilities.
        """
        return self._learned(target[None], y, shadows, included, generator)[0]

    def two_fold(self, logits: Tensor, y: Tensor, included: Tensor, *, generator: torch.Generator) -> Tensor:
        """Score K models, each half of them with the other half as its shadow models.

        Args:
            logits: of the K models on the same records (K, N, C).
            y: true classes of the records (N,), int64.
            included: whether model k was trained on record i (K, N), bool.
            generator: source of the networks' weights and of the order of rows.

        Returns:
            Log odds of membership (K, N), float64.

        Raises:
            ValueError: shapes that do not fit, or logits that are not finite or are probabilities.
        """
        half = len(logits) // 2
        first, second = slice(0, half), slice(half, None)
        return torch.cat(
            [
                self._learned(logits[first], y, logits[second], included[second], generator),
                self._learned(logits[second], y, logits[first], included[first], generator),
            ]
        )

    def _learned(
        self, targets: Tensor, y: Tensor, shadows: Tensor, included: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Log odds (T, N) of T targets with logits (T, N, C)."""
        if shadows.ndim != 3 or targets.shape[1:] != shadows.shape[1:] or y.shape != shadows.shape[1:2]:
            raise ValueError(
                f"logits must be (K, N, C) for the shadows, (N, C) for a target, and classes (N,): got "
                f"{tuple(shadows.shape)}, {tuple(targets.shape[1:])} and {tuple(y.shape)}"
            )
        check_signals(shadows[..., 0], included)
        check_not_probabilities(shadows)
        check_not_probabilities(targets)
        seen, side = shadows.softmax(-1).float().flatten(0, 1), included.flatten().long()
        answers = Dataset(seen, side, SIDES, "answers of shadow models")
        classes, place = y.unique(return_inverse=True)
        of_class = torch.arange(len(classes))[:, None] == place.repeat(len(shadows))  # (classes, K * N)
        networks = ModelStack(MLP(self.hidden), answers.shape, len(SIDES), [generator] * len(classes))
        fit_stack(networks, answers, of_class, fit=self.fit, generators=[generator] * len(classes))
        answers_of = targets.softmax(-1).float()
        odds = torch.stack([networks.logits(each).double().diff(dim=-1)[..., 0] for each in answers_of])
        return odds.gather(1, place.expand(len(targets), 1, -1))[:, 0]  # (T, classes, N): each record's own network
