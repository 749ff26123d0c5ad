"""Input transforms: defenses that change the input before the model sees it.

Bit depth and JPEG are piecewise constant. Their gradient is zero almost everywhere, which stops gradient attacks and
makes the model no more robust. They are marked `differentiable = False`: evaluate them with an attack through `BPDA`
and with a score-based one (`Square`), never with PGD alone.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from aisec_lab.data import Splits
from aisec_lab.models import in_mode_of


def check_images(x: Tensor, name: str) -> None:
    """Check that inputs are images.

    Args:
        x: inputs.
        name: of the defense, for the message.

    Raises:
        ValueError: a shape other than (N, 1 or 3, H, W).
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"{name} takes images (N, 1 or 3, H, W), got shape {tuple(x.shape)}: use BitDepth for tables")


class _JPEGRoundTrip(torch.autograd.Function):
    """JPEG compression and decompression, with their true gradient: zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, quality: int) -> Tensor:
        pixels = x.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # (N, H, W, C)
        decoded = np.empty_like(pixels)
        for image, place in zip(pixels, decoded, strict=True):
            file = BytesIO()
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
            place[:] = np.asarray(Image.open(file)).reshape(image.shape)
        return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(x) / 255

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(grads[0]), None


class Rounding(nn.Module):
    """Round each number to one of `2 ** bits` levels.

    Args:
        bits: 1 to 8.
    """

    differentiable: ClassVar[bool] = False

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.levels = 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        """Rounded inputs, shape of x, for x of any shape in [0, 1]."""
        return (x * self.levels).round() / self.levels


class MedianSmoothing(nn.Module):
    """Replace each pixel by the median of its neighbourhood; the border is mirrored.

    Args:
        size: side of the neighbourhood in pixels, odd.

    Raises:
        ValueError: on a call, inputs that are no images, or smaller than the neighbourhood.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Images of the same shape, for images (N, C, H, W)."""
        check_images(x, "MedianFilter")
        margin = self.size // 2
        if margin >= min(x.shape[2:]):
            raise ValueError(
                f"a median over {self.size}x{self.size} pixels does not fit {tuple(x.shape[2:])}: lower size"
            )
        padded = F.pad(x, (margin,) * 4, mode="reflect")
        return padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4).median(dim=4).values


class JPEGCodec(nn.Module):
    """Compress and decompress images by JPEG.

    Args:
        quality: of the compression, 1 to 95.
    """

    differentiable: ClassVar[bool] = False

    def __init__(self, quality: int) -> None:
        super().__init__()
        self.quality = quality

    def forward(self, x: Tensor) -> Tensor:
        """Images of the same shape, in [0, 1], for images (N, 1 or 3, H, W) in [0, 1]."""
        check_images(x, "JPEG")
        decoded: Tensor = _JPEGRoundTrip.apply(x, self.quality)
        return decoded


@dataclass(frozen=True)
class Undefended:
    """No defense: the call returns the model itself. Call contract: docs/defenses.md, "Inference-time defense"."""

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return model


@dataclass(frozen=True)
class BitDepth:
    """Reduce the bit depth of inputs (Xu et al., 2018, arXiv:1704.01155, section III-A).

    Call contract: docs/defenses.md, "Inference-time defense".

    Args:
        bits: for each number of the input, 1 to 8.
    """

    bits: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bits must be from 1 to 8, got {self.bits}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(Rounding(self.bits), model))


@dataclass(frozen=True)
class MedianFilter:
    """Smooth images by a median filter (Xu et al., 2018, arXiv:1704.01155, section III-B).

    Call contract: docs/defenses.md, "Inference-time defense"; inputs must be images.

    Args:
        size: side of the neighbourhood in pixels, odd, at least 3.
    """

    size: int = 3

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise ValueError(f"size must be odd and at least 3, got {self.size}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(MedianSmoothing(self.size), model))


@dataclass(frozen=True)
class JPEG:
    """JPEG compression of the input (Dziugaite et al., 2016, arXiv:1608.00853).

    Call contract: docs/defenses.md, "Inference-time defense"; inputs must be images.

    Args:
        quality: 1 to 95.
    """

    quality: int = 75

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise ValueError(f"quality must be from 1 to 95, got {self.quality}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(JPEGCodec(self.quality), model))
