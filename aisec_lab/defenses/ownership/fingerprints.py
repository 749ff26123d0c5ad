"""Fingerprints: recognise a model without a watermark. They are calibrated on unrelated models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.models import logits_of
from aisec_lab.models.checked import checked_model


class Similarity(Protocol):
    """A measure of similarity to one model."""

    def __call__(self, suspect: nn.Module) -> float:
        """The similarity of a suspect, evaluated in evaluation mode; larger is more similar, never NaN."""
        ...


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A similarity to the owner's model, with the similarities of unrelated models.

    Args:
        similarity: to the owner's model.
        null: similarities (m,), float64, of m reference models that were not used to make the fingerprint.
    """

    similarity: Similarity
    null: Tensor

    def verify(self, suspect: nn.Module) -> float:
        """The p-value of "the suspect is one more reference model": the rank of its similarity among them.

        P[p <= a] <= a holds if suspect and references are exchangeable: trained on other rows of the same kind, in the
        same way, with architectures chosen in the same way (Vovk et al., 2005, proposition 2.4). For a suspect that was
        made in another way there is no guarantee. The p-value is never below 1 / (m + 1).

        Args:
            suspect: a classifier, or an `Oracle` if the similarity needs queries only.

        Returns:
            The p-value, in (0, 1].

        Raises:
            ValueError: a suspect that cannot be queried with the points (see `Suspect`), or an opaque one if the
                similarity needs its weights.
        """
        return (1 + int((~(self.null < self.similarity(suspect))).sum())) / (1 + len(self.null))  # NaN is not similar


def calibrated(similarity: Similarity, references: Sequence[nn.Module]) -> Fingerprint:
    """A fingerprint from a similarity and independent models; ValueError without any model."""
    if not references:
        raise ValueError(
            "a fingerprint is calibrated on models that do not have it, got no reference model: train 50 or more"
        )
    return Fingerprint(similarity, torch.tensor([similarity(model) for model in references], dtype=torch.float64))


class Fingerprinting(Protocol):
    """A way to make fingerprints: a frozen dataclass of settings. Call contract: docs/ownership.md, "Fingerprints"."""

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """Make the fingerprint of a classifier.

        Args:
            model: classifier in evaluation mode. It is not changed.
            clean: rows from which points are made, inputs in [0, 1], on the model's device.
            references: unrelated models of the same task, in evaluation mode; 50 or more for p < 0.02.
            generator: source of all randomness.

        Returns:
            The fingerprint, calibrated on the references.

        Raises:
            ValueError: no references, fewer rows than points, inputs outside [0, 1], or a model in training mode.
        """
        ...


@dataclass(frozen=True, eq=False)
class AgreementFingerprint:
    """Similarity: the share of points for which a suspect predicts the same class as the model.

    Args:
        x: points (N, *input) in [0, 1].
        y: classes that the model predicts (N,), int64.
        classes: number of classes K of the model.
    """

    x: Tensor
    y: Tensor
    classes: int

    def __call__(self, suspect: nn.Module) -> float:
        """The share, in [0, 1]; only predicted classes are needed."""
        with checked_model(suspect):
            return (logits_of(Suspect(suspect, self.classes), self.x).argmax(1) == self.y.cpu()).double().mean().item()


def agreement_with(model: nn.Module, x: Tensor) -> AgreementFingerprint:
    """The agreement with a model's own predictions at points (N, *input)."""
    with checked_model(model):
        logits = logits_of(model, x)
    return AgreementFingerprint(x, logits.argmax(1), logits.shape[1])


def draw_rows(clean: Dataset, n: int, generator: torch.Generator) -> Tensor:
    """Inputs (n, *input) of rows drawn without replacement; ValueError if there are fewer rows."""
    if n > len(clean):
        raise ValueError(f"{clean.name} has {len(clean)} rows, {n} points cannot begin there: ask for fewer points")
    return clean.x[torch.randperm(len(clean), generator=generator)[:n].to(clean.x.device)]
