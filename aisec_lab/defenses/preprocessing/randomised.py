"""Randomised input transforms.

Bind a generator before each call: `with seeded(model, generator)`. Attack such a model through `EOT`, which averages
gradients over draws; evaluate the attack with fresh draws.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.core import RowNoise
from aisec_lab.data import Splits
from aisec_lab.defenses.preprocessing.transforms import check_images
from aisec_lab.models import in_mode_of


class Randomised(nn.Module):
    """Base class of randomised parts of a model.

    Attributes:
        generator: source of the noise; bound by `seeded`.
    """

    generator: torch.Generator | None = None

    def noise(self, x: Tensor) -> RowNoise:
        """Noise keyed by the rows of x (N, *input); a ValueError where no generator is bound."""
        if self.generator is None:
            raise ValueError(
                f"{type(self).__name__} draws at random and no generator is bound: use `with seeded(model, generator):`"
            )
        return RowNoise(x, self.generator)


class ResizeAndPad(Randomised):
    """Shrink each image to a random size and pad it with black to its old size, at a random place.

    Args:
        smallest: the smallest size, a share of the image's side in (0, 1).
    """

    def __init__(self, smallest: float) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, x: Tensor) -> Tensor:
        """Images of the same shape, in [0, 1], for images (N, C, H, W) in [0, 1]."""
        check_images(x, "RandomResizing")
        noise = self.noise(x)
        size = noise.uniform((1,), 0)
        down, here = _placed(x.shape[2], self.smallest, size, noise.uniform((1,), 1))
        right, there = _placed(x.shape[3], self.smallest, size, noise.uniform((1,), 2))
        grid = torch.stack(
            [right[:, None, :].expand(-1, x.shape[2], -1), down[:, :, None].expand(-1, -1, x.shape[3])], 3
        )
        shrunk = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return shrunk * (here[:, None, :, None] & there[:, None, None, :])


def _placed(side: int, smallest: float, size: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Sampling coordinates (N, side) of one axis, -1 and 1 at the image's edges, and a mask (N, side) of its pixels.

    `size` and `place` (N, 1), uniform on [0, 1), choose the new size and its position.
    """
    least = max(1, round(smallest * side))
    new = (least + size * (side + 1 - least)).floor()  # least, ..., side, each as likely
    first = (place * (side + 1 - new)).floor()
    centre = torch.arange(side, device=size.device) - first + 0.5
    return 2 * centre / new - 1, (centre > 0) & (centre < new)


@dataclass(frozen=True)
class RandomResizing:
    """Random resizing and padding (Xie et al., 2018, arXiv:1711.01991, section 3).

    The paper enlarges the canvas, for networks that take inputs of any size. Here the canvas keeps its shape and the
    image shrinks. Call contract: docs/defenses.md, "Inference-time defense"; inputs must be images, and a generator
    must be bound.

    Args:
        smallest: the smallest size, a share of the image's sides in (0, 1).
    """

    smallest: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.smallest < 1:
            raise ValueError(f"smallest is a share of the image's side between 0 and 1, got {self.smallest}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(ResizeAndPad(self.smallest), model))
