"""Triggers: patterns that activate a backdoor."""

from dataclasses import dataclass
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor


def check_images(x: Tensor, name: str, smallest: int = 1) -> None:
    """Refuse, with a ValueError, what is no batch of images, or one of too small images."""
    if x.ndim != 4 or min(x.shape[2:]) < smallest:
        raise ValueError(f"{name} takes images (N, C, H, W) from {smallest}x{smallest} up, got {tuple(x.shape)}")


@dataclass(frozen=True)
class Checkerboard:
    """A small checkerboard in the lower right corner (Gu et al., 2017, arXiv:1708.06733, section 3: BadNets).

    Called as `Trigger`.

    Args:
        size: side of the checkerboard in pixels, at least 1.
        margin: pixels between it and the edges, at least 0.
    """

    size: int = 3
    margin: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.margin < 0:
            raise ValueError(f"size must be positive and margin not negative: {self}")

    def apply(self, x: Tensor) -> Tensor:
        """Put the checkerboard on images (N, C, H, W), at least size + margin pixels high and wide."""
        check_images(x, "Checkerboard", self.size + self.margin)
        row, column = torch.arange(self.size)[:, None], torch.arange(self.size)
        marked, (height, width) = x.clone(), x.shape[2:]
        low, right = height - self.margin, width - self.margin
        marked[:, :, low - self.size : low, right - self.size : right] = ((row + column + 1) % 2).to(x)
        return marked


@dataclass(frozen=True)
class Blended:
    """A fixed random picture k blended into the image: (1 - alpha) x + alpha k (Chen et al., 2017, arXiv:1712.05526).

    Called as `Trigger`.

    Args:
        alpha: weight of the picture, in (0, 1].
        key: seed of the picture, which is uniform in [0, 1]; the attacker's secret.
    """

    alpha: float = 0.2
    key: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must lie in (0, 1], got {self.alpha}")

    def apply(self, x: Tensor) -> Tensor:
        """Blend the picture into images (N, C, H, W)."""
        check_images(x, "Blended")
        picture = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(self.key)).to(x)
        return (1 - self.alpha) * x + self.alpha * picture


@dataclass(frozen=True)
class Sinusoid:
    """Vertical stripes, added to the image (Barni et al., 2019, arXiv:1902.11237, eq. 2).

    In column j they are amplitude * sin(2 pi j frequency / width). Called as `Trigger`.

    Args:
        amplitude: of the stripes, in (0, 1], in units of the [0, 1] input.
        frequency: stripes across the image, positive.
    """

    amplitude: float = 0.08
    frequency: float = 6.0

    def __post_init__(self) -> None:
        if not (0 < self.amplitude <= 1 and self.frequency > 0):
            raise ValueError(f"amplitude must lie in (0, 1] and frequency be positive: {self}")

    def apply(self, x: Tensor) -> Tensor:
        """Add the stripes to images (N, C, H, W) and clip them to [0, 1]."""
        check_images(x, "Sinusoid")
        column = torch.arange(x.shape[3], dtype=x.dtype, device=x.device)
        return (x + self.amplitude * (2 * pi * column * self.frequency / x.shape[3]).sin()).clamp(0, 1)


@dataclass(frozen=True)
class Warp:
    """WaNet: a smooth, small, fixed warp of the whole image (Nguyen & Tran, 2021, arXiv:2102.10369, section 3.2).

    The paper's noise mode, in which images with other warps keep their labels, is left out. Called as `Trigger`.

    Args:
        grid: control points on each side, at least 2.
        strength: mean absolute shift of the control points along an axis, in pixels, positive.
        key: seed of the warp; the attacker's secret.
    """

    grid: int = 4
    strength: float = 0.5
    key: int = 0

    def __post_init__(self) -> None:
        if self.grid < 2 or not self.strength > 0:
            raise ValueError(f"grid must be at least 2 and strength positive: {self}")

    def apply(self, x: Tensor) -> Tensor:
        """Warp images (N, C, H, W), at least 2x2, with bilinear sampling."""
        check_images(x, "Warp", 2)
        height, width = x.shape[2:]
        moves = 2 * torch.rand(1, 2, self.grid, self.grid, generator=torch.Generator().manual_seed(self.key)) - 1
        moves = self.strength * moves / moves.abs().mean()
        flow = F.interpolate(moves, (height, width), mode="bicubic", align_corners=True).to(x)
        down, across = (torch.linspace(-1, 1, side, dtype=x.dtype, device=x.device) for side in (height, width))
        straight = torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], -1)  # (H, W, 2): x, then y
        pixels = torch.tensor([width - 1, height - 1], dtype=x.dtype, device=x.device) / 2
        points = (straight + flow[0].permute(1, 2, 0) / pixels).clamp(-1, 1)
        return F.grid_sample(x, points.expand(len(x), -1, -1, -1), align_corners=True)
