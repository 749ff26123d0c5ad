"""The call of every poisoning attack, what it returns, and how it chooses the rows that it changes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset


class Trigger(Protocol):
    """A trigger: a pattern that can be put on any image of a task and activates a backdoor."""

    def apply(self, x: Tensor) -> Tensor:
        """Put the trigger on images.

        Args:
            x: images (N, C, H, W), float32 in [0, 1]; they stay as they are.

        Returns:
            Images with the trigger, shape of `x`, in [0, 1].

        Raises:
            ValueError: no images, or images too small for the trigger.
        """
        ...


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A poisoned training set, and what only the attacker knows of it.

    Args:
        dataset: all N rows that the learner gets, in the order of the clean ones; added rows come last.
        poison_mask: which of them the attacker changed or added, (N,), bool.
        trigger: activates the backdoor; None where there is none.
        target: class that inputs with the trigger get, or that all poisoned rows were given; None where there is none.
    """

    dataset: Dataset
    poison_mask: Tensor
    trigger: Trigger | None = None
    target: int | None = None


class Poisoning(ABC):
    """A poisoning attack: a frozen dataclass of settings that is called on a training set.

    Call contract: docs/poisoning-attacks.md. A subclass implements `_poison`.
    """

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
            dataset: the clean training set; it stays as it is.
            surrogate: classifier in evaluation mode that the attacker trained on similar data; None where the attack
                needs none.
            targets: rows that the attack is about, of the dataset's shape; their classes are those that the attack
                wants of them, or their true ones where it raises the loss. None where the attack needs none.
            generator: source of all randomness.

        Returns:
            The poisoned training set; rows outside `poison_mask` are unchanged to the bit.

        Raises:
            ValueError: a missing surrogate or missing targets where the attack needs them, targets of another shape,
                classes that the dataset does not have, or a rate that asks for no row or for more than may be poisoned.
        """
        return self._poison(dataset, surrogate, targets, generator)

    @abstractmethod
    def _poison(
        self, dataset: Dataset, surrogate: nn.Module | None, targets: Dataset | None, generator: torch.Generator
    ) -> Poisoned:
        """Poison a training set; arguments as in the call."""

    def _require_surrogate(self, surrogate: nn.Module | None) -> nn.Module:
        """The surrogate; ValueError where there is none."""
        if surrogate is None:
            raise ValueError(f"{type(self).__name__} needs a surrogate: a classifier trained on data like these")
        return surrogate

    def _require_targets(self, targets: Dataset | None, dataset: Dataset) -> Dataset:
        """The targets; ValueError where there are none, or rows of another shape than the dataset's."""
        if targets is None or targets.shape != dataset.shape:
            got = "no targets" if targets is None else f"targets of shape {targets.shape}"
            raise ValueError(
                f"{type(self).__name__} needs targets, rows as those of {dataset.name}, of shape {dataset.shape}: "
                f"got {got}"
            )
        return targets


def check_rate(rate: float) -> None:
    """Refuse, with a ValueError, a share of rows outside (0, 1]."""
    if not 0 < rate <= 1:
        raise ValueError(f"rate is the share of all rows that are poisoned, above 0 and at most 1, got {rate}")


def check_two_classes(dataset: Dataset) -> None:
    """Refuse, with a ValueError, a dataset of one class, where no label can be flipped."""
    if len(dataset.classes) < 2:
        raise ValueError(f"{dataset.name} has one class: no label of it can be flipped to another")


def check_class(name: str, number: int | None, dataset: Dataset) -> None:
    """Refuse, with a ValueError, a class that the dataset does not have; None is accepted."""
    if number is not None and not 0 <= number < len(dataset.classes):
        raise ValueError(f"{name} must be a class of {dataset.name}, 0..{len(dataset.classes) - 1}, got {number}")


def rows_at_rate(rate: float, n: int, allowed: int) -> int:
    """How many of n rows a rate asks for.

    Args:
        rate: share of the n rows, in (0, 1].
        n: rows of the dataset.
        allowed: how many of them may be poisoned.

    Returns:
        rate * n, rounded.

    Raises:
        ValueError: that is none, or more than `allowed`.
    """
    rows = round(rate * n)
    if not 1 <= rows <= allowed:
        raise ValueError(
            f"a rate of {rate} asks for {rows} of {n} rows, and {allowed} may be poisoned: "
            f"choose a rate from {1 / n:.2g} to {allowed / n:.2g}"
        )
    return rows


def choose_rows(allowed: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Draw the rows to poison.

    Args:
        allowed: which rows may be poisoned, (N,), bool.
        rate: share of all N rows, in (0, 1].
        generator: source of the choice.

    Returns:
        A mask (N,), bool: different rows, each allowed one as likely as any other.

    Raises:
        ValueError: as `rows_at_rate`.
    """
    places = allowed.nonzero().squeeze(1)
    rows = rows_at_rate(rate, len(allowed), len(places))
    chosen = torch.zeros_like(allowed)
    chosen[places[torch.randperm(len(places), generator=generator)[:rows]]] = True
    return chosen
