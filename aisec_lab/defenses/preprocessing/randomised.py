"""Sanitizers that draw at random: an attacker who does not average over the draws follows a gradient of the past.

Inside an attack and when its points are scored, a generator must be bound: `with seeded(model, generator)`. The
attacker's view of such a model is `EOT`; the score takes fresh draws.
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
    """A part of a model that draws from the generator that `seeded` binds."""

    generator: torch.Generator | None = None

    def noise(self, x: Tensor) -> RowNoise:
        """Noise keyed by the rows of x; ValueError where no generator is bound."""
        if self.generator is None:
            raise ValueError(
                f"{type(self).__name__} draws at random and no generator is bound: use `with seeded(model, generator):`"
            )
        return RowNoise(x, self.generator)


class ShrunkAndPadded(Randomised):
    """Shrink each image to a random size and put it at a random place on black; x (N, C, H, W)."""

    def __init__(self, smallest: float) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, in [0, 1]."""
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
    """Where the pixels of one axis of the new image come from, and whether from inside the old one.

    Args:
        side: of the image along this axis.
        smallest: size of the shrunk image, a share of the side.
        size, place: uniform on [0, 1), (N, 1): where between smallest and side the new size lies, and the new place.

    Returns:
        Coordinates (N, side), -1 and 1 at the edges of the old image; and a mask (N, side).
    """
    least = max(1, round(smallest * side))
    new = (least + size * (side + 1 - least)).floor()  # least, ..., side, each as likely
    first = (place * (side + 1 - new)).floor()
    centre = torch.arange(side, device=size.device) - first + 0.5
    return 2 * centre / new - 1, (centre > 0) & (centre < new)


@dataclass(frozen=True)
class RandomResizing:
    """Random resizing and padding (Xie et al., 2018, arXiv:1711.01991, section 3). Called as `Undefended`.

    The paper enlarges the canvas, for networks that take any size; here the image shrinks, to sizes from `smallest`
    times its sides up, and the canvas keeps its shape.
    """

    smallest: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.smallest < 1:
            raise ValueError(f"smallest is a share of the image's side between 0 and 1, got {self.smallest}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(ShrunkAndPadded(self.smallest), model))
