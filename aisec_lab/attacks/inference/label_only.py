"""Label-only membership inference: members keep their predicted class under perturbations more often."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check, check_classes
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.asked import asked


class Perturbation(Protocol):
    """A source of perturbed copies of rows: a frozen dataclass of settings that is called."""

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Iterator[Tensor]:
        """Perturb rows several times.

        Args:
            x: rows (N, *input), float32 in [0, 1].
            generator: source of the perturbations; those of a row do not depend on the other rows.

        Yields:
            Perturbed copies, one after another, each of the shape of `x` and in [0, 1].

        Raises:
            ValueError: rows to which the perturbation cannot be applied.
        """
        ...


@dataclass(frozen=True)
class NoisePerturbation:
    """Add Gaussian noise to every pixel or column and clip to [0, 1]. Called as `Perturbation`.

    Args:
        sigma: standard deviation, in units of the [0, 1] input, positive.
        copies: how many, at least 1.
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
    """Flip each binary column to 1 - x with a small probability. Called as `Perturbation`.

    Args:
        rate: that probability, in (0, 1).
        copies: how many, at least 1.
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
    """Translate images (N, C, H, W) by every vector of length |rows| + |columns| <= reach but zero. Fills with black.

    Called as `Perturbation`; nothing is drawn.

    Args:
        reach: largest translation in pixels, at least 1.
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
    """Score a record by how often the model classifies its perturbed copies correctly (Choquette-Choo et al., 2021).

    arXiv:2007.14321, section 3.2. Only the predicted class is used, so that the attack also runs on an `Oracle` that
    publishes labels only. Call contract: docs/inference-attacks.md.

    Args:
        perturbation: makes the copies.
    """

    perturbation: Perturbation = NoisePerturbation()

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Score records.

        Args:
            model: classifier in evaluation mode, or an `Oracle`.
            x: records (N, *input), float32 in [0, 1].
            y: their true classes (N,), int64.
            generator: source of the perturbations.

        Returns:
            The share of the record and its copies that are classified correctly, (N,), float64, in [0, 1]; larger means
            "was in the training set". Records with equal counts are tied.

        Raises:
            ValueError: inputs outside [0, 1], classes outside 0..K-1, a model in training mode, or rows that cannot be
                perturbed so.
        """
        check(model, x, y)
        with asked(model), torch.no_grad():
            answer = model(x)
            check_classes(answer, y)
            right = [answer.argmax(1) == y]
            right += [model(copy).argmax(1) == y for copy in self.perturbation(x, generator=generator)]
        return torch.stack(right).double().mean(0)
