"""What a compression is called with, and several of them one after the other."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from aisec_lab.data import Dataset


class Compression(Protocol):
    """Settings of a compression."""

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        """A smaller classifier in evaluation mode; the model that is handed over stays as it is.

        Args:
            model: classifier in evaluation mode, made of the lab's layers.
            data: rows to train or to calibrate on, on the model's device.
            generator: source of all randomness.
        """
        ...


@dataclass(frozen=True)
class SequentialCompression:
    """Several compressions, each of what the one before it left (Han et al., 2016, arXiv:1510.00149).

    Args of the call, returns: as for `Compression`.

    Raises:
        ValueError: no step at all; what the steps refuse.
    """

    steps: tuple[Compression, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("there is no step to take, got an empty sequence: name one compression at least")

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        for step in self.steps:
            model = step(model, data=data, generator=generator)
        return model
