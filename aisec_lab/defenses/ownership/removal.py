"""What a thief does to a stolen model so that its owner does not know it again."""

from dataclasses import dataclass

import torch
from torch import nn

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.attacks.extraction.result import Extraction
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.defenses.compression.compression import Compression
from aisec_lab.defenses.ownership.key import Key
from aisec_lab.defenses.ownership.watermark import Watermark
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, TrainingRecipe, copied


@dataclass(frozen=True)
class FineTuningAttack:
    """Train on, all layers, with rows of the thief's own (Uchida et al., 2017, arXiv:1701.04082, section 4.3).

    Args:
        fit: the training; its learning rate decides between tuning and learning anew.
        objective: what it minimises.

    Args of the call, returns: as for `Repair`.

    Raises:
        ValueError: what an attack refuses of a model and its inputs.
    """

    fit: Fit = Fit(epochs=20, learning_rate=0.003)
    objective: Objective | TrainingRecipe = Standard()

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> nn.Module:
        check(model, clean.x, clean.y)
        tuned = copied(model)
        self.fit(tuned, clean, self.objective, generator=generator)
        return tuned.eval()


@dataclass(frozen=True)
class OverwritingAttack:
    """Put a mark of the same kind over the owner's, under a key of the thief's.

    Args:
        mark: the kind, with its settings.

    Args of the call, returns: as for `Repair`; the key is drawn from the generator.
    """

    mark: Watermark

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> nn.Module:
        check(model, clean.x, clean.y)
        return self.mark.embed(model, clean, Key.drawn(generator), generator=generator).model.eval()


@dataclass(frozen=True)
class ExtractionAttack:
    """Throw the weights away and learn a copy from the model's answers.

    Args:
        attack: an extraction attack, such as `Knockoff`.
        labels_only: learn from labels, as a thief does who fears that the probabilities carry the mark.

    Args of the call, returns: as for `Repair`; of the clean rows, the inputs are asked about and the classes not used.
    """

    attack: Extraction
    labels_only: bool = False

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> nn.Module:
        check(model, clean.x, clean.y)
        return self.attack(Oracle(model, labels_only=self.labels_only), clean, generator=generator).model


@dataclass(frozen=True)
class CompressionAttack:
    """Compress the stolen model, which may remove what is not needed for its task.

    Args:
        compression: how; the clean rows are its data.

    Args of the call, returns: as for `Repair`.
    """

    compression: Compression

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> nn.Module:
        check(model, clean.x, clean.y)
        return self.compression(model, data=clean, generator=generator)
