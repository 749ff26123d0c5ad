"""Total variation minimisation: reconstruct an image from a random part of its pixels."""

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
    """Forward differences (N, C, 2, H, W) of z (N, C, H, W), vertical and horizontal, zero at the far edges."""
    down = F.pad(z[:, :, 1:] - z[:, :, :-1], (0, 0, 0, 1))
    right = F.pad(z[:, :, :, 1:] - z[:, :, :, :-1], (0, 1))
    return torch.stack([down, right], 2)


def divergence(p: Tensor) -> Tensor:
    """Minus the adjoint of `gradient`: maps p (N, C, 2, H, W) to (N, C, H, W)."""
    down, right = p[:, :, 0, :-1], p[:, :, 1, :, :-1]
    return F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0)) + F.pad(right, (0, 1)) - F.pad(right, (1, 0))


def tv_denoised(x: Tensor, kept: Tensor, weight: float, steps: int) -> Tensor:
    """Minimise 1/2 sum kept (z - x)^2 + weight TV(z) by Chambolle & Pock (2011, algorithm 1).

    Args:
        x: images (N, C, H, W).
        kept: 1 for the pixels in the data term, else 0; broadcast against `x`.
        weight: of the isotropic total variation, the sum over pixels and channels of the gradient's L2 norm.
        steps: of the solver, all differentiable.

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


class TVDenoiser(Randomised):
    """Drop random pixels and reconstruct the image from the others.

    Args:
        weight: of the total variation; positive.
        dropped: share of pixels that are dropped, in [0, 1).
        steps: of the solver, at least 1.
    """

    def __init__(self, weight: float, dropped: float, steps: int) -> None:
        super().__init__()
        self.weight, self.dropped, self.steps = weight, dropped, steps

    def forward(self, x: Tensor) -> Tensor:
        """Images of the same shape, in [0, 1], for images (N, C, H, W) in [0, 1]."""
        check_images(x, "TotalVariation")
        kept = torch.ones_like(x[:, :1])
        if self.dropped > 0:
            kept = (self.noise(x).uniform((1, *x.shape[2:]), 0) >= self.dropped).to(x.dtype)
        return tv_denoised(x, kept, self.weight, self.steps)


@dataclass(frozen=True)
class TotalVariation:
    """Total variation minimisation (Guo et al., 2018, arXiv:1711.00117, section 3.4).

    The paper's data term is a norm; here it is half its square, as in Rudin et al. (1992), so its weights do not carry
    over. Call contract: docs/defenses.md, "Inference-time defense"; inputs must be images, and a generator must be
    bound where pixels are dropped.

    Args:
        weight: of the total variation; positive.
        dropped: share of pixels that are dropped at random, in [0, 1); 0 draws nothing.
        steps: of the solver, at least 1.
    """

    weight: float = 0.1
    dropped: float = 0.5
    steps: int = 50

    def __post_init__(self) -> None:
        if not self.weight > 0 or not 0 <= self.dropped < 1 or self.steps < 1:
            raise ValueError(f"weight and steps must be positive, and dropped lie in [0, 1): {self}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        return in_mode_of(model, nn.Sequential(TVDenoiser(self.weight, self.dropped, self.steps), model))
