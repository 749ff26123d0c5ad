"""Augmentation of images under which the victim's outputs are assumed to stay the same."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.core.row_noise import RowNoise


@dataclass(frozen=True)
class RandomShift:
    """Shift images at random, fill with black, and optionally mirror them.

    Args:
        reach: largest shift in pixels, vertically and horizontally, at least 0; all shifts are equally likely.
        mirror: whether to swap left and right with probability one half.
    """

    reach: int = 2
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.reach < 0:
            raise ValueError(f"reach must be at least 0 pixels, got {self.reach}")

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Shift and mirror a batch.

        Args:
            x: images (N, C, H, W), float32 in [0, 1].
            generator: source of the shifts; that of a row depends on the generator's state and on this row only.

        Returns:
            Images, shape of `x`, in [0, 1].

        Raises:
            ValueError: inputs that are no images.
        """
        if x.ndim != 4:
            raise ValueError(f"only images (N, C, H, W) can be shifted, got {tuple(x.shape)}: use no augmentation")
        noise = RowNoise(x, generator)
        if self.mirror:
            x = torch.where(noise.uniform((1, 1, 1), 0) < 0.5, x.flip(3), x)
        return shift_images(x, self.reach - noise.integers(0, 2 * self.reach + 1, (2,), 1))


def shift_images(x: Tensor, moves: Tensor) -> Tensor:
    """Shift each image by its own number of pixels and fill with black.

    Args:
        x: images (N, C, H, W).
        moves: shifts down and right (N, 2), int64, negative for up and left.

    Returns:
        Images, shape of `x`.
    """
    height, width = x.shape[2:]
    row = torch.arange(height, device=x.device) - moves[:, :1]  # (N, H): where each row comes from
    column = torch.arange(width, device=x.device) - moves[:, 1:]
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    rows = torch.arange(len(x), device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[rows, row.clamp(0, height - 1)[:, :, None], column.clamp(0, width - 1)[:, None, :]]
    return moved.permute(0, 3, 1, 2) * inside[:, None]
