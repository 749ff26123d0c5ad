"""Backdoors: poisoned rows with a trigger teach a model to give inputs with that trigger the target class."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from aisec_lab.attacks.evasion.attack import Attack
from aisec_lab.attacks.poisoning.poisoned import Poisoned, Poisoning, Trigger, check_class, check_rate, choose_rows
from aisec_lab.data import Dataset


@dataclass(frozen=True)
class Backdoor(Poisoning):
    """BadNets: rows of other classes get the trigger and the target's label (Gu et al., 2017, arXiv:1708.06733).

    Call contract: docs/poisoning-attacks.md. Neither `surrogate` nor `targets` is used.

    Args:
        trigger: pattern that is put on the poisoned rows.
        target: class that they are labelled as, 0..K-1.
        rate: share of all training rows that are poisoned, in (0, 1].
    """

    trigger: Trigger
    target: int
    rate: float = 0.01

    def __post_init__(self) -> None:
        check_rate(self.rate)

    def _poison(
        self, dataset: Dataset, surrogate: nn.Module | None, targets: Dataset | None, generator: torch.Generator
    ) -> Poisoned:
        check_class("target", self.target, dataset)
        mask = choose_rows(dataset.y != self.target, self.rate, generator)
        x, y = dataset.x.clone(), dataset.y.clone()
        x[mask], y[mask] = self.trigger.apply(x[mask]), self.target
        return Poisoned(replace(dataset, x=x, y=y), mask, self.trigger, self.target)


@dataclass(frozen=True)
class CleanLabel(Poisoning):
    """A clean-label backdoor: rows of the target class get the trigger and keep their true label.

    Without `attack`, the attack of Barni et al. (2019, arXiv:1902.11237). With one, that of Turner et al. (2019,
    arXiv:1912.02771, section 4.2): each row is first made adversarial for the surrogate, so that the learner relies on
    the trigger.

    Call contract: docs/poisoning-attacks.md. `targets` is unused; `surrogate` is needed where `attack` is given.

    Args:
        trigger: pattern that is put on the poisoned rows.
        target: class whose rows are poisoned, 0..K-1.
        rate: share of all training rows that are poisoned, in (0, 1].
        attack: evasion attack on the surrogate, applied before the trigger; None for none.
    """

    trigger: Trigger
    target: int
    rate: float = 0.05
    attack: Attack | None = None

    def __post_init__(self) -> None:
        check_rate(self.rate)

    def _poison(
        self, dataset: Dataset, surrogate: nn.Module | None, targets: Dataset | None, generator: torch.Generator
    ) -> Poisoned:
        check_class("target", self.target, dataset)
        mask = choose_rows(dataset.y == self.target, self.rate, generator)
        x, chosen = dataset.x.clone(), dataset.x[mask]
        if self.attack is not None:
            model = self._require_surrogate(surrogate)
            chosen = self.attack(model, chosen, dataset.y[mask], generator=generator)
        x[mask] = self.trigger.apply(chosen)
        return Poisoned(replace(dataset, x=x), mask, self.trigger, self.target)
