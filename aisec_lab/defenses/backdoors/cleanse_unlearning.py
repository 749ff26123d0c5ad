"""Unlearning with reversed triggers: train the model to ignore the triggers that Neural Cleanse found."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.backdoors.neural_cleanse import NeuralCleanse, NeuralCleanseResult
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, copied


@dataclass(frozen=True)
class NeuralCleanseUnlearning:
    """Train on clean rows with the reversed triggers of all suspects (Wang et al., 2019, IEEE S&P, section VI-C).

    The training set has each clean row as it is, and once more with the trigger of each suspect class, always with its
    true class. If no class is suspect, an unchanged copy is returned. The paper puts the trigger on a fifth of the rows
    and trains for one epoch, on many more rows.

    Call contract: docs/backdoor-defenses.md, "Repairs". The call takes one more argument, `found`: the result of
    `NeuralCleanse` on this model, if there is one already; else `cleanse` runs first.

    Args:
        cleanse: the search for triggers.
        fit: the training.

    Raises:
        ValueError: whatever `NeuralCleanse` refuses.
    """

    cleanse: NeuralCleanse = NeuralCleanse()
    fit: Fit = Fit(epochs=10, learning_rate=0.001)

    def __call__(
        self, model: nn.Module, clean: Dataset, *, generator: torch.Generator, found: NeuralCleanseResult | None = None
    ) -> nn.Module:
        found = self.cleanse(model, clean, generator=generator) if found is None else found
        repaired = copied(model)
        if not found.suspects:
            return repaired
        masks, patterns = found.masks[list(found.suspects), None], found.patterns[list(found.suspects), None]
        marked = ((1 - masks) * clean.x + masks * patterns).flatten(0, 1)  # suspect by suspect
        times = 1 + len(found.suspects)
        rows = replace(clean, x=torch.cat([clean.x, marked]), y=clean.y.repeat(times))
        self.fit(repaired, rows, Standard(), generator=generator)
        return repaired
