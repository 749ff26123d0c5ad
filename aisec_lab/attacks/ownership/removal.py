"""Removal attacks: a thief changes a stolen model so that its owner no longer recognises it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.extraction.result import Extraction
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.core.validation import check_inputs
from aisec_lab.data import Dataset
from aisec_lab.models import Fit, Objective, TrainingRecipe, copied


class RemovalAttack(Protocol):
    """An attack on a watermark or a fingerprint: a frozen dataclass of settings that is called.

    Call contract: docs/ownership.md, "Attacks on ownership".
    """

    def __call__(self, model: nn.Module, rows: Dataset, /, *, generator: torch.Generator) -> nn.Module:
        """Make the model that the thief uses.

        Args:
            model: the stolen classifier, in evaluation mode. It is not changed.
            rows: the thief's own rows and their classes, on the model's device.
            generator: source of all randomness.

        Returns:
            Another classifier of the same task, in evaluation mode.

        Raises:
            ValueError: inputs outside [0, 1], classes that the model does not have, or a model in training mode.
        """
        ...


class _MarkedModel(Protocol):
    """What `embed` returns: it has the marked model in the attribute `model`."""

    @property
    def model(self) -> nn.Module: ...


class _Mark(Protocol):
    """A watermark that can be embedded, such as `aisec_lab.defenses.TriggerSet`."""

    def embed(self, model: nn.Module, train: Dataset, key: Any, *, generator: torch.Generator) -> _MarkedModel: ...


class _Compression(Protocol):
    """A compression, such as `aisec_lab.defenses.MagnitudePruning`."""

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module: ...


def _cross_entropy(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    return F.cross_entropy(model(x), y, reduction="none")


@dataclass(frozen=True)
class FineTuningAttack:
    """Train all layers further on the thief's own rows (Uchida et al., 2017, arXiv:1701.04082, section 4.3).

    Call contract: docs/ownership.md. A model without open weights, such as an `Oracle`, is refused with a ValueError.

    Args:
        fit: the training. A small learning rate fine-tunes; a large one makes the model forget what it knew.
        objective: the loss that training minimises; the cross-entropy by default.
    """

    fit: Fit = Fit(epochs=20, learning_rate=0.003)
    objective: Objective | TrainingRecipe = _cross_entropy

    def __call__(self, model: nn.Module, rows: Dataset, *, generator: torch.Generator) -> nn.Module:
        check_inputs(model, rows.x, rows.y)
        tuned = copied(model)
        self.fit(tuned, rows, self.objective, generator=generator)
        return tuned.eval()


@dataclass(frozen=True)
class OverwritingAttack:
    """Embed a second watermark of the same kind, under a key of the thief's.

    Call contract: docs/ownership.md. Whatever the watermark refuses is refused here too.

    Args:
        mark: the watermark with its settings: anything with an `embed` method, see docs/ownership.md.
        draw_key: makes the thief's key from the call's generator, such as `aisec_lab.defenses.Key.drawn`.
    """

    mark: _Mark
    draw_key: Callable[[torch.Generator], Any]

    def __call__(self, model: nn.Module, rows: Dataset, *, generator: torch.Generator) -> nn.Module:
        check_inputs(model, rows.x, rows.y)
        return self.mark.embed(model, rows, self.draw_key(generator), generator=generator).model.eval()


@dataclass(frozen=True)
class ExtractionAttack:
    """Train a new model on the stolen model's answers, and discard the stolen weights.

    Call contract: docs/ownership.md. Of the thief's rows, only the inputs are used: they are the queries.

    Args:
        attack: an extraction attack, such as `Knockoff`.
        labels_only: learn from the predicted classes and not from probabilities, which may carry the watermark.
    """

    attack: Extraction
    labels_only: bool = False

    def __call__(self, model: nn.Module, rows: Dataset, *, generator: torch.Generator) -> nn.Module:
        check_inputs(model, rows.x, rows.y)
        return self.attack(Oracle(model, labels_only=self.labels_only), rows, generator=generator).model


@dataclass(frozen=True)
class CompressionAttack:
    """Compress the stolen model, which may remove what its task does not need.

    Call contract: docs/ownership.md. Whatever the compression refuses is refused here too.

    Args:
        compression: the method with its settings, such as `aisec_lab.defenses.MagnitudePruning`. The thief's rows are
            the data that it trains or calibrates on.
    """

    compression: _Compression

    def __call__(self, model: nn.Module, rows: Dataset, *, generator: torch.Generator) -> nn.Module:
        check_inputs(model, rows.x, rows.y)
        return self.compression(model, data=rows, generator=generator)
