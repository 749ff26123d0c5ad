"""Total variation minimisation: redraw the image from some of its pixels, as smooth as they allow."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.data import Splits
from aisec_lab.defenses.preprocessing.randomised import Randomised
from aisec_lab.defenses.preprocessing.transforms import check_images
from aisec_lab.models import in_mode_of

STEP = 1 / math.sqrt(8)  # of both variables: their product times the operator's squared norm, 8, must not exceed 1


def gradient(z: Tensor) -> Tensor:
    """Forward differences of z (N, C, H, W), down and to the right, zero at the far edges: (N, C, 2, H, W)."""
    down = F.pad(z[:, :, 1:] - z[:, :, :-1], (0, 0, 0, 1))
    right = F.pad(z[:, :, :, 1:] - z[:, :, :, :-1], (0, 1))
    return torch.stack([down, right], 2)


def divergence(p: Tensor) -> Tensor:
    """Minus the adjoint of `gradient`: p (N, C, 2, H, W) to (N, C, H, W)."""
    down, right = p[:, :, 0, :-1], p[:, :, 1, :, :-1]
    return F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0)) + F.pad(right, (0, 1)) - F.pad(right, (1, 0))


def smoothed(x: Tensor, kept: Tensor, weight: float, steps: int) -> Tensor:
    """Minimise 1/2 sum kept (z - x)^2 + weight TV(z) by Chambolle & Pock (2011, algorithm 1).

    Args:
        x: images (N, C, H, W).
        kept: 1 for the pixels that z should resemble, else 0; broadcast against `x`.
        weight: of the isotropic total variation, the sum over pixels and channels of the gradient's length.
        steps: how many; each is differentiable, and so is the whole.

    Returns:
        z, shape of `x`, in [0, 1].
    """
    z = ahead = x * kept
    p = torch.zeros_like(gradient(z))
    for _ in range(steps):
        p = p + STEP * gradient(ahead)
        p = p / (p.square().sum(2, keepdim=True) / weight**2).clamp(min=1).sqrt()
        before, z = z, (z + STEP * divergence(p) + STEP * kept * x) / (1 + STEP * kept)
        ahead = 2 * z - before
    return z.clamp(0, 1)


class TVDenoised(Randomised):
    """Drop pixels at random and redraw the image from the others; x (N, C, H, W)."""

    def __init__(self, weight: float, dropped: float, steps: int) -> None:
        super().__init__()
        self.weight, self.dropped, self.steps = weight, dropped, steps

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, in [0, 1]."""
        check_images(x, "TotalVariation")
        kept = torch.ones_like(x[:, :1])
        if self.dropped > 0:
            kept = (self.noise(x).uniform((1, *x.shape[2:]), 0) >= self.dropped).to(x.dtype)
        return smoothed(x, kept, self.weight, self.steps)


@dataclass(frozen=True)
class TotalVariation:
    """Total variation minimisation (Guo et al., 2018, arXiv:1711.00117, section 3.4). Called as `Undefended`.

    The paper's data term is a norm, here it is half its square, as in Rudin et al. (1992): weights do not carry over.

    Args:
        weight: of the total variation.
        dropped: the share of pixels that are dropped at random; with 0 the defense draws nothing.
        steps: of the solver.
    """

    weight: float = 0.1
    dropped: float = 0.5
    steps: int = 50

    def __post_init__(self) -> None:
        if not self.weight > 0 or not 0 <= self.dropped < 1 or self.steps < 1:
            raise ValueError(f"weight and steps must be positive, and dropped lie in [0, 1): {self}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(TVDenoised(self.weight, self.dropped, self.steps), model))
