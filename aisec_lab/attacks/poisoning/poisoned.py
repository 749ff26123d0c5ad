"""What every poisoning attack hands over, and how it chooses the rows that it touches."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset


class Trigger(Protocol):
    """A mark that can be put on any image of a task: the key to a backdoor."""

    def apply(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] with the mark on them; `x` stays as it is."""
        ...


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A training set as its learner gets it, and what only the attacker knows of it.

    Args:
        dataset: all rows, in the order of the clean ones.
        where: which of them were changed, (N,), bool.
        trigger: what opens the backdoor; None where there is none.
        target: the class that it opens to; None where there is none.
    """

    dataset: Dataset
    poison_mask: Tensor
    trigger: Trigger | None = None
    target: int | None = None


class Poisoning(Protocol):
    """A poisoning attack: a frozen dataclass of settings that is called."""

    def __call__(
        self,
        dataset: Dataset,
        *,
        surrogate: nn.Module | None = None,
        targets: Dataset | None = None,
        generator: torch.Generator,
    ) -> Poisoned:
        """Poison a training set.

        Args:
            dataset: the clean training set.
            surrogate: a classifier that the attacker has trained on data like these, where the attack needs one.
            targets: rows that the attack is about, where it needs some, with the classes that it wants of them.
            generator: source of all randomness.
        """
        ...


def check_rate(rate: float) -> None:
    """Refuse a share of rows outside (0, 1]."""
    if not 0 < rate <= 1:
        raise ValueError(f"rate is the share of all rows that are poisoned, above 0 and at most 1, got {rate}")


def check_class_labels(dataset: Dataset) -> None:
    """Refuse a dataset of one class, where no label can be flipped."""
    if len(dataset.classes) < 2:
        raise ValueError(f"{dataset.name} has one class: no label of it can be flipped to another")


def check_class(name: str, number: int | None, dataset: Dataset) -> None:
    """Refuse a class that the dataset does not have."""
    if number is not None and not 0 <= number < len(dataset.classes):
        raise ValueError(f"{name} must be a class of {dataset.name}, 0..{len(dataset.classes) - 1}, got {number}")


def count_of_rate(rate: float, n: int, allowed: int) -> int:
    """How many of n rows a rate asks for; ValueError where that is none, or more than may be poisoned."""
    rows = round(rate * n)
    if not 1 <= rows <= allowed:
        raise ValueError(
            f"a rate of {rate} asks for {rows} of {n} rows, and {allowed} may be poisoned: "
            f"choose a rate from {1 / n:.2g} to {allowed / n:.2g}"
        )
    return rows


def choose_rows(among: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """A mask (N,) over rows: a share of all N, drawn from those that `among` (N,) allows; raises as `count_of_rate`."""
    allowed = among.nonzero().squeeze(1)
    rows = count_of_rate(rate, len(among), len(allowed))
    where = torch.zeros_like(among)
    where[allowed[torch.randperm(len(allowed), generator=generator)[:rows]]] = True
    return where
