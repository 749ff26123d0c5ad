"""Orthonormal bases for searches without gradients: single coordinates, or cosine waves of low frequency."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from aisec_lab.core.row_noise import RowNoise


class Basis(Protocol):
    """An orthonormal basis of the inputs, or of a part of them."""

    def order(self, x: Tensor, noise: RowNoise) -> Tensor:
        """The numbers (N, D) of all directions, int64, in a random order for each row (its noise at counter 0)."""
        ...

    def directions(self, x: Tensor, number: Tensor) -> Tensor:
        """For each row the direction of its number (N,): Euclidean length 1, shape of `x`."""
        ...

    def normal(self, x: Tensor, samples: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise in the basis' first directions: (samples, *input), shaped as rows of `x`."""
        ...


@dataclass(frozen=True)
class Pixels:
    """The standard basis: one coordinate at a time; for inputs of any shape (Guo et al., 2019, arXiv:1905.07121)."""

    def order(self, x: Tensor, noise: RowNoise) -> Tensor:
        return noise.uniform((x.shape[1:].numel(),), 0).argsort(1)

    def directions(self, x: Tensor, number: Tensor) -> Tensor:
        return torch.zeros_like(x.flatten(1)).scatter(1, number[:, None], 1).view_as(x)

    def normal(self, x: Tensor, samples: int, generator: torch.Generator) -> Tensor:
        return torch.randn((samples, *x.shape[1:]), generator=generator, dtype=x.dtype, device=x.device)


@dataclass(frozen=True)
class DCT:
    """The two-dimensional discrete cosine transform (type II) of each channel; for images (N, C, H, W).

    The low-frequency directions of SimBA-DCT (Guo et al., 2019, arXiv:1905.07121).

    Args:
        low: share in (0, 1] of the frequencies along each side that are tried first; 1/8 as in the paper.

    Raises:
        ValueError: a share outside (0, 1]; inputs that are no images.
    """

    low: float = 0.125

    def __post_init__(self) -> None:
        if not 0 < self.low <= 1:
            raise ValueError(f"low is a share of the frequencies, in (0, 1], got {self.low}")

    def order(self, x: Tensor, noise: RowNoise) -> Tensor:
        """The lowest frequencies in a random order, then the higher ones, ring by ring."""
        down, right = self._lowest(x)
        above = [
            torch.arange(side, device=x.device) - low for side, low in zip(x.shape[2:], (down, right), strict=True)
        ]
        ring = torch.maximum(above[0][:, None], above[1][None, :]).clamp(min=-1)  # (H, W), -1 for the lowest
        ring = ring.expand(x.shape[1:]).flatten()
        return (noise.uniform(ring.shape, 0) + ring).argsort(1)

    def directions(self, x: Tensor, number: Tensor) -> Tensor:
        self._lowest(x)
        channel, rest = number // x.shape[2:].numel(), number % x.shape[2:].numel()
        down, right = (cosines(side, x) for side in x.shape[2:])
        waves = down[rest // x.shape[3]][:, :, None] * right[rest % x.shape[3]][:, None, :]  # (N, H, W)
        placed = torch.zeros_like(x)
        placed[torch.arange(len(x), device=x.device), channel] = waves
        return placed

    def normal(self, x: Tensor, samples: int, generator: torch.Generator) -> Tensor:
        down, right = self._lowest(x)
        size = (samples, x.shape[1], down, right)
        waves = torch.randn(size, generator=generator, dtype=x.dtype, device=x.device)
        return cosines(x.shape[2], x)[:down].T @ waves @ cosines(x.shape[3], x)[:right]

    def _lowest(self, x: Tensor) -> tuple[int, int]:
        """How many frequencies are low, along height and width."""
        if x.ndim != 4:
            raise ValueError(f"DCT takes images (N, C, H, W), got shape {tuple(x.shape)}: use Pixels")
        height, width = (max(1, round(self.low * side)) for side in x.shape[2:])
        return height, width


def cosines(side: int, like: Tensor) -> Tensor:
    """The orthonormal basis of the discrete cosine transform, type II.

    Args:
        side: number of pixels.
        like: a tensor of the wanted dtype and device.

    Returns:
        Shape (side, side), a row for each frequency.
    """
    place = torch.arange(side, dtype=torch.float64, device=like.device)
    waves = (2 / side) ** 0.5 * torch.cos(math.pi / side * (place[None, :] + 0.5) * place[:, None])
    waves[0] /= 2**0.5
    return waves.to(like.dtype)
