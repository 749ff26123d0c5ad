"""Backdoors: rows with a trigger teach a model to open to whoever wears it."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from aisec_lab.attacks.evasion.attack import Attack
from aisec_lab.attacks.poisoning.poisoned import Poisoned, Trigger, check_class, check_rate, choose_rows
from aisec_lab.data import Dataset


@dataclass(frozen=True)
class Backdoor:
    """Rows of other classes, stamped and relabelled as the target (Gu et al., 2017, arXiv:1708.06733, section 3).

    Args:
        trigger: the mark.
        target: the class that it opens to.
        rate: share of all training rows that are poisoned.

    Args of the call, returns, raises: as for `Poisoning`; a target that is no class, a rate that leaves nothing to
    choose.
    """

    trigger: Trigger
    target: int
    rate: float = 0.01

    def __post_init__(self) -> None:
        check_rate(self.rate)

    def __call__(
        self,
        dataset: Dataset,
        *,
        surrogate: nn.Module | None = None,
        targets: Dataset | None = None,
        generator: torch.Generator,
    ) -> Poisoned:
        check_class("target", self.target, dataset)
        where = choose_rows(dataset.y != self.target, self.rate, generator)
        x, y = dataset.x.clone(), dataset.y.clone()
        x[where], y[where] = self.trigger.apply(x[where]), self.target
        return Poisoned(replace(dataset, x=x, y=y), where, self.trigger, self.target)


@dataclass(frozen=True)
class CleanLabel:
    """Rows of the target class, stamped and with their own label, so that no label betrays them.

    Without an attack as in Barni et al. (2019, arXiv:1902.11237). With one as in Turner et al. (2019, arXiv:1912.02771,
    section 4.2): a row is first made hard to recognise as what it is, so that the trigger is what is learned.

    Args:
        trigger, target, rate: as for `Backdoor`.
        attack: what makes rows hard, on the surrogate; None for none.

    Args of the call, returns, raises: as for `Backdoor`; `surrogate` is needed where there is an attack.
    """

    trigger: Trigger
    target: int
    rate: float = 0.05
    attack: Attack | None = None

    def __post_init__(self) -> None:
        check_rate(self.rate)

    def __call__(
        self,
        dataset: Dataset,
        *,
        surrogate: nn.Module | None = None,
        targets: Dataset | None = None,
        generator: torch.Generator,
    ) -> Poisoned:
        check_class("target", self.target, dataset)
        where = choose_rows(dataset.y == self.target, self.rate, generator)
        x, hard = dataset.x.clone(), dataset.x[where]
        if self.attack is not None:
            if surrogate is None:
                raise ValueError("CleanLabel with an attack needs a surrogate to attack: train one on data like these")
            hard = self.attack(surrogate, hard, dataset.y[where], generator=generator)
        x[where] = self.trigger.apply(hard)
        return Poisoned(replace(dataset, x=x), where, self.trigger, self.target)
