"""Rotations and translations of images: a threat model without a ball."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class RotationTranslation:
    """All rotations and translations up to given limits (Engstrom et al., 2019, arXiv:1712.02779, section 2).

    Args:
        angle: largest rotation, either way, in degrees, in [0, 180].
        shift: largest translation along either axis, either way, in pixels.

    Raises:
        ValueError: a limit that is negative, infinite or NaN, or an angle above 180.
    """

    angle: float = 30.0
    shift: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.angle <= 180 or not (self.shift >= 0 and math.isfinite(self.shift)):
            raise ValueError(f"angle must lie in [0, 180] degrees and shift be a finite number of pixels >= 0: {self}")

    @property
    def limits(self) -> tuple[float, float, float]:
        """The largest angle, shift to the right, and shift downwards."""
        return self.angle, self.shift, self.shift


def rotate_translate(x: Tensor, pose: Tensor) -> Tensor:
    """Rotate images about their centre, then shift them; differentiable in images and poses.

    Args:
        x: images (N, C, H, W).
        pose: for each (N, 3) the angle in degrees, anticlockwise, and the shifts to the right and downwards in pixels.

    Returns:
        Shape of `x`, bilinear, zero outside the original image.

    Raises:
        ValueError: inputs that are no images.
    """
    check_images(x)
    height, width = x.shape[2:]
    angle = torch.deg2rad(pose[:, 0])[:, None, None]
    right = torch.arange(width, dtype=x.dtype, device=x.device) - (width - 1) / 2 - pose[:, 1, None]  # (N, W)
    down = torch.arange(height, dtype=x.dtype, device=x.device) - (height - 1) / 2 - pose[:, 2, None]  # (N, H)
    right, down = right[:, None, :], down[:, :, None]
    source_x = right * angle.cos() - down * angle.sin()  # source of each pixel, from the centre
    source_y = right * angle.sin() + down * angle.cos()
    grid = torch.stack([2 * source_x / width, 2 * source_y / height], 3)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False).clamp(0, 1)  # against rounding


def check_images(x: Tensor) -> None:
    """Refuse, with a ValueError, inputs that are no images (N, C, H, W)."""
    if x.ndim != 4:
        raise ValueError(f"only images (N, C, H, W) can be turned and shifted, got shape {tuple(x.shape)}")
