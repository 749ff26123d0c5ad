"""Images turned about their middle and shifted: a threat that no ball holds."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class RotationTranslation:
    """All rotations and translations up to a largest (Engstrom et al., 2019, arXiv:1712.02779, section 2).

    Args:
        angle: largest rotation, either way, in degrees.
        shift: largest translation along either axis, either way, in pixels.

    Raises:
        ValueError: one of them negative, infinite or no number, or an angle above 180.
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
    """Images as they look once they are turned about their middle, and then shifted.

    Args:
        x: images (N, C, H, W).
        pose: for each an angle in degrees, anticlockwise, and shifts to the right and downwards in pixels (N, 3).

    Returns:
        Shape of `x`, interpolated between the four nearest pixels; what comes from outside the image is zero.
        Differentiable in both.

    Raises:
        ValueError: inputs that are no images.
    """
    check_images(x)
    height, width = x.shape[2:]
    angle = torch.deg2rad(pose[:, 0])[:, None, None]
    right = torch.arange(width, dtype=x.dtype, device=x.device) - (width - 1) / 2 - pose[:, 1, None]  # (N, W)
    down = torch.arange(height, dtype=x.dtype, device=x.device) - (height - 1) / 2 - pose[:, 2, None]  # (N, H)
    right, down = right[:, None, :], down[:, :, None]
    across = right * angle.cos() - down * angle.sin()  # where each pixel comes from, from the middle
    along = right * angle.sin() + down * angle.cos()
    places = torch.stack([2 * across / width, 2 * along / height], 3)
    return F.grid_sample(x, places, padding_mode="zeros", align_corners=False).clamp(0, 1)  # of rounding


def check_images(x: Tensor) -> None:
    """Refuse, with a ValueError, what is no batch of images."""
    if x.ndim != 4:
        raise ValueError(f"only images (N, C, H, W) can be turned and shifted, got shape {tuple(x.shape)}")
