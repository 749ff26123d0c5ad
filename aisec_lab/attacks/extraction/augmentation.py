"""Changes of images that a thief expects to leave the victim's answers as they are."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.attacks.evasion.noise import RowNoise


@dataclass(frozen=True)
class Shifts:
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
        down, right = noise.integers(0, 2 * self.reach + 1, (2,), 1).unbind(1)  # (N,): where the window begins
        rows, columns = (
            first[:, None] + torch.arange(n, device=x.device)
            for first, n in zip((down, right), x.shape[2:], strict=True)
        )
        padded = F.pad(x, (self.reach,) * 4).movedim(1, 3)  # (N, H + 2 reach, W + 2 reach, C)
        each = torch.arange(len(x), device=x.device)[:, None, None]
        return padded[each, rows[:, :, None], columns[:, None, :]].movedim(3, 1)
