"""The transformations over which a physical attack takes its expectation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.core.row_noise import RowNoise

ANGLE, SCALE, SHIFT, LIGHT, NOISE = range(5)  # counters of the noise


@dataclass(frozen=True)
class TransformRanges:
    """A distribution of transformations, each uniform (Athalye et al., 2018, arXiv:1707.07397, section 2.1).

    Args:
        angle: largest rotation, either way, in degrees.
        scale: smallest and largest size, as shares of the object's own.
        shift: largest displacement along either axis, either way, as a share of the image's side.
        light: largest change of brightness, either way, as a share in [0, 1] of it.
        noise: standard deviation of the camera's noise in each pixel.

    Raises:
        ValueError: any of these out of its range.
    """

    angle: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    light: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        small, large = self.scale
        if min(self.angle, self.shift, self.noise) < 0 or not 0 <= self.light <= 1 or not 0 < small <= large:
            raise ValueError(
                f"angle, shift and noise must be >= 0, light in [0, 1], scale 0 < smallest <= largest: {self}"
            )

    def grid(
        self, x: Tensor, noise: RowNoise, *, centre: tuple[float, float] = (0.5, 0.5), size: float = 1.0
    ) -> Tensor:
        """Where each pixel of an image samples the object, in the format of `grid_sample`.

        Args:
            x: images (N, C, S, S).
            noise: keyed by the rows of x; gives each its own rotation, scale and position.
            centre: the object's centre without shift, from left and top, in shares of the side.
            size: side of the object without scaling, a share of the image's.

        Returns:
            Coordinates (N, S, S, 2), -1 and 1 at the edges of the object.
        """
        rotation = torch.deg2rad(self.angle * (2 * noise.uniform((), ANGLE) - 1))
        small, large = self.scale
        side = size * (small + (large - small) * noise.uniform((), SCALE))
        middle = 2 * torch.tensor(centre).to(x) - 1 + 2 * self.shift * (2 * noise.uniform((2,), SHIFT) - 1)
        inverse = torch.stack([rotation.cos(), rotation.sin(), -rotation.sin(), rotation.cos()], 1).view(-1, 2, 2)
        inverse = inverse / side.view(-1, 1, 1)
        theta = torch.cat([inverse, -inverse @ middle[:, :, None]], 2)  # from the image to the object
        return F.affine_grid(theta, list(x.shape), align_corners=False)

    def relight(self, pixels: Tensor, noise: RowNoise) -> Tensor:
        """Pixels (N, C, H, W) at each row's random brightness, with the camera's noise; clipped to [0, 1]."""
        gain = 1 + self.light * (2 * noise.uniform((), LIGHT) - 1)
        return (pixels * per_row(gain, pixels) + self.noise * noise.normal(tuple(pixels.shape[1:]), NOISE)).clamp(0, 1)


def check_square(x: Tensor, what: str) -> None:
    """Refuse, with a ValueError, inputs that are no square images (N, C, S, S): rotation would shear others."""
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise ValueError(f"{what} takes square images (N, C, S, S), got shape {tuple(x.shape)}")
