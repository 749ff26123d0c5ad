"""Membership from classes alone: what a model was trained on it gets right even when it is disturbed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check, check_classes
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.asked import asked


class Perturbation(Protocol):
    """A frozen dataclass that makes disturbed copies of rows."""

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Iterator[Tensor]:
        """Copies of x (N, *input), one after another, each of its shape and in [0, 1]; what befalls a row does not
        depend on the others."""
        ...


@dataclass(frozen=True)
class NoisePerturbation:
    """Normal noise on every pixel or column, clipped to [0, 1].

    Args:
        sigma: its standard deviation, in units of the [0, 1] input.
        copies: how many.
    """

    sigma: float = 0.1
    copies: int = 50

    def __post_init__(self) -> None:
        if not self.sigma > 0 or self.copies < 1:
            raise ValueError(f"sigma must be positive and copies at least 1: {self}")

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Iterator[Tensor]:
        noise = RowNoise(x, generator)
        for copy in range(self.copies):
            yield (x + self.sigma * noise.normal(tuple(x.shape[1:]), copy)).clamp(0, 1)


@dataclass(frozen=True)
class FlipPerturbation:
    """Each column of a table of zeros and ones turned into its opposite, 1 - x, with a small chance.

    Args:
        rate: that chance, in (0, 1).
        copies: how many.
    """

    rate: float = 0.03
    copies: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.copies < 1:
            raise ValueError(f"rate must lie in (0, 1) and copies be at least 1: {self}")

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Iterator[Tensor]:
        noise = RowNoise(x, generator)
        for copy in range(self.copies):
            yield torch.where(noise.uniform(tuple(x.shape[1:]), copy) < self.rate, 1 - x, x)


@dataclass(frozen=True)
class TranslationPerturbation:
    """Images moved by up to `reach` pixels, down, right and both, with black at their edges.

    Args:
        reach: |rows| + |columns| that an image is moved by at most, from 1 up.
    """

    reach: int = 2

    def __post_init__(self) -> None:
        if self.reach < 1:
            raise ValueError(f"reach must be at least one pixel, got {self.reach}")

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Iterator[Tensor]:
        if x.ndim != 4:
            raise ValueError(
                f"only images (N, C, H, W) can be moved, got {tuple(x.shape)}: "
                "use NoisePerturbation or FlipPerturbation"
            )
        height, width = x.shape[-2:]
        padded = nn.functional.pad(x, (self.reach,) * 4)
        for down in range(-self.reach, self.reach + 1):
            for right in range(-self.reach, self.reach + 1):
                if 0 < abs(down) + abs(right) <= self.reach:
                    top, left = self.reach - down, self.reach - right
                    yield padded[..., top : top + height, left : left + width]


@dataclass(frozen=True)
class LabelOnly:
    """How often a model still gives a record its class when it is disturbed (Choquette-Choo et al., 2021, section 3.2).

    arXiv:2007.14321. It sees the winning class alone, so that it also runs on an `Oracle` that publishes no more.

    Args:
        disturbance: makes the copies.

    Args of the call:
        model: classifier in evaluation mode.
        x, y: records (N, *input) in [0, 1] and their true classes (N,), int64.
        generator: source of the disturbance.

    Returns:
        The share of right answers (N,), float64, on the record and its copies; bigger means "was in the training set".
        It is coarse: records with equal counts are not told apart.

    Raises:
        ValueError: pixels outside [0, 1], or a model in training mode.
    """

    disturbance: Perturbation = NoisePerturbation()

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        check(model, x, y)
        with asked(model), torch.no_grad():
            answer = model(x)
            check_classes(answer, y)
            right = [answer.argmax(1) == y]
            right += [model(copy).argmax(1) == y for copy in self.disturbance(x, generator=generator)]
        return torch.stack(right).double().mean(0)
