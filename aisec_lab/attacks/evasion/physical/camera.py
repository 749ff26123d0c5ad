"""The model behind a camera: what it answers when the scene is seen under changing conditions."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.evasion.physical.conditions import TransformRanges, check_square
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.contexts import trains


class TransformedModel(nn.Module):
    """A classifier that sees each image turned, scaled, shifted, in another light, and with noise."""

    generator: torch.Generator | None = None  # `seeded` binds it

    def __init__(self, model: nn.Module, conditions: TransformRanges) -> None:
        super().__init__()
        self.model, self.conditions = model, conditions
        self.training = trains(model)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, S, S) in [0, 1], each seen once; beyond its border an image goes on."""
        check_square(x, "Camera")
        if self.generator is None:
            raise ValueError("Camera draws at random and no generator is bound: use `with seeded(model, generator):`")
        noise = RowNoise(x, self.generator)
        seen = F.grid_sample(x, self.conditions.grid(x, noise), padding_mode="border", align_corners=False)
        logits: Tensor = self.model(self.conditions.lit(seen, noise))
        return logits


@dataclass(frozen=True)
class PhysicalTransform:
    """A view of a classifier through a camera: a randomised classifier, so that `EOT` and all attacks apply.

    Args of the call:
        model: a classifier of square images.

    Returns:
        A classifier, in the mode of `model`, that draws from the generator bound by `seeded`.
    """

    conditions: TransformRanges

    def __call__(self, model: nn.Module) -> nn.Module:
        return TransformedModel(model, self.conditions)
