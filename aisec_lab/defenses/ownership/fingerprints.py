"""Fingerprints: what a model is recognised by although nothing was put into it, and how rarely others have it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.models import logits_of
from aisec_lab.models.asked import asked


class Similarity(Protocol):
    """How much a suspect is like one model."""

    def __call__(self, suspect: nn.Module) -> float:
        """Bigger is more alike; no NaN. The suspect is seen in evaluation mode."""
        ...


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A likeness, and how alike models are that have nothing to do with the fingerprinted one.

    Args:
        likeness: to the fingerprinted model.
        null: the likeness of m reference models (m,), float64, none of which took part in making the fingerprint.
    """

    likeness: Similarity
    null: Tensor

    def verify(self, suspect: nn.Module) -> float:
        """A p-value of "the suspect is one more of the reference models": its rank among them.

        P[p <= a] <= a holds where suspect and references are exchangeable: other rows of the same kind, the same way of
        training and of choosing architectures. Of a suspect that was made in another way it says nothing certain, and
        it cannot go under 1 / (m + 1), however alike the two are (Vovk et al., 2005, proposition 2.4).

        Args:
            suspect: a classifier, or an `Oracle` where the likeness only asks.

        Raises:
            ValueError: a suspect that can't be asked (`Suspect`); an opaque one, where the likeness looks inside.
        """
        return (1 + int((~(self.null < self.likeness(suspect))).sum())) / (1 + len(self.null))  # NaN is no likeness


def calibrated(likeness: Similarity, references: Sequence[nn.Module]) -> Fingerprint:
    """A fingerprint from a likeness and independent models; ValueError where there are none."""
    if not references:
        raise ValueError("a fingerprint is worth what others lack of it, got no reference model: train 50 or more")
    return Fingerprint(likeness, torch.tensor([likeness(model) for model in references], dtype=torch.float64))


class Fingerprinting(Protocol):
    """Settings of a fingerprint."""

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """The fingerprint of a classifier, which stays as it is.

        Args:
            model: classifier in evaluation mode.
            clean: rows from which points are made, on the model's device.
            references: models that have nothing to do with it, in evaluation mode; 50 or more for p < 0.02.
            generator: source of all randomness.
        """
        ...


@dataclass(frozen=True, eq=False)
class AgreementFingerprint:
    """The share of points that a suspect answers with the model's class.

    Args:
        x: points (N, *input) in [0, 1].
        y: the model's classes for them (N,), int64.
        classes: K, how many the model has.
    """

    x: Tensor
    y: Tensor
    classes: int

    def __call__(self, suspect: nn.Module) -> float:
        """As `Similarity`; only winning classes are asked for."""
        with asked(suspect):
            return (logits_of(Suspect(suspect, self.classes), self.x).argmax(1) == self.y.cpu()).double().mean().item()


def answered(model: nn.Module, x: Tensor) -> AgreementFingerprint:
    """The likeness to a model by its own answers to points (N, *input)."""
    with asked(model):
        logits = logits_of(model, x)
    return AgreementFingerprint(x, logits.argmax(1), logits.shape[1])


def drawn(clean: Dataset, n: int, generator: torch.Generator) -> Tensor:
    """Inputs (n, *input) of rows drawn without repeats; ValueError where there are fewer."""
    if n > len(clean):
        raise ValueError(f"{clean.name} has {len(clean)} rows, {n} points cannot begin there: ask for fewer points")
    return clean.x[torch.randperm(len(clean), generator=generator)[:n].to(clean.x.device)]
