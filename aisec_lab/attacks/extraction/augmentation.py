"""Changes of images that a thief expects to leave the victim's answers as they are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.core.row_noise import RowNoise


@dataclass(frozen=True)
class RandomShift:
    """Images moved by up to `reach` pixels each way, with black at their edges, and mirrored half of the time.

    Args:
        reach: the most pixels that an image is moved down, up, right or left.
        mirror: whether left and right change places with probability one half.

    Args of the call:
        x: images (N, C, H, W), float32 in [0, 1].
        generator: what befalls a row depends on its state and on the row alone.

    Returns:
        Images, shape of `x`.

    Raises:
        ValueError: inputs that are no images.
    """

    reach: int = 2
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.reach < 0:
            raise ValueError(f"reach must be at least 0 pixels, got {self.reach}")

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"only images (N, C, H, W) can be shifted, got {tuple(x.shape)}: use no augmentation")
        noise = RowNoise(x, generator)
        if self.mirror:
            x = torch.where(noise.uniform((1, 1, 1), 0) < 0.5, x.flip(3), x)
        return shift_images(x, self.reach - noise.integers(0, 2 * self.reach + 1, (2,), 1))


def shift_images(x: Tensor, moves: Tensor) -> Tensor:
    """Images (N, C, H, W), each moved down and right by its `moves` (N, 2), whole pixels; black comes in."""
    height, width = x.shape[2:]
    row = torch.arange(height, device=x.device) - moves[:, :1]  # (N, H): where each row comes from
    column = torch.arange(width, device=x.device) - moves[:, 1:]
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    rows = torch.arange(len(x), device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[rows, row.clamp(0, height - 1)[:, :, None], column.clamp(0, width - 1)[:, None, :]]
    return moved.permute(0, 3, 1, 2) * inside[:, None]
