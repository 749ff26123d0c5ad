"""Unstamping: teach the model to answer right in spite of the trigger that an inspection has found."""

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

    Each clean row counts as it is and once more with each suspect's mark, always under its own class. A model in
    which nothing is suspect comes back as it is: the repair then costs nothing, and mends nothing. The paper marks a
    fifth of the rows and trains for one epoch, with many more rows.

    Args:
        cleanse: the inspection.
        fit: the training.

    Args of the call, returns: as for `Repair`; `found` is what an inspection of this model has found, if there was one.

    Raises:
        ValueError: what `NeuralCleanse` refuses.
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
