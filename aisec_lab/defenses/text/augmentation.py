"""Adversarial data augmentation of texts."""

from dataclasses import dataclass

import torch
from torch import nn

from aisec_lab.attacks.text.attack import TextAttack
from aisec_lab.data import Texts, TextSplits
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models.text import TextTraining


@dataclass(frozen=True)
class AdversarialAugmentation:
    """Retrain on the training texts and their adversarial versions (Jin et al., 2020, arXiv:1907.11932, sec. 5.3).

    The adversarial versions are computed once, against the undefended model. A text that the attack does not change
    adds none. Call contract: docs/defenses.md, "Text defense"; attack and training draw from the generator.

    Args:
        attack: makes the adversarial versions; it learns from the training texts first.
    """

    attack: TextAttack

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        train = data.train
        found = self.attack.learn(train)(model, train.texts, train.y, generator=generator)
        new = found.changed.nonzero().squeeze(1)
        both = Texts(
            train.texts + tuple(found.texts[row] for row in new.tolist()),
            torch.cat([train.y, train.y[new]]),
            train.classes,
            train.name,
        )
        return training(both, Standard(), generator=generator)
