"""Compressions: their call contract, and a sequence of them."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from aisec_lab.data import Dataset


class Compression(Protocol):
    """A compression of a classifier. Call contract: docs/defenses.md, "Compression"."""

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        """Compress a classifier.

        Args:
            model: classifier in evaluation mode; it stays as it is.
            data: rows to train or calibrate on, on the model's device.
            generator: source of all randomness.

        Returns:
            A new classifier in evaluation mode.
        """
        ...


@dataclass(frozen=True)
class SequentialCompression:
    """Apply several compressions, one after the other (Han et al., 2016, arXiv:1510.00149).

    Call contract: docs/defenses.md, "Compression".

    Args:
        steps: compressions, at least one; each gets the result of the one before.
    """

    steps: tuple[Compression, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("there is no step to take, got an empty sequence: name one compression at least")

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        for step in self.steps:
            model = step(model, data=data, generator=generator)
        return model
