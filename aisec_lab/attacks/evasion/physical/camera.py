"""A model behind a camera: images are transformed at random before it sees them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.evasion.physical.conditions import TransformRanges, check_square
from aisec_lab.core.modes import in_training_mode
from aisec_lab.core.row_noise import RowNoise


class TransformedModel(nn.Module):
    """A classifier of randomly rotated, scaled, shifted, relit and noisy images.

    Args:
        model: classifier of square images (N, C, S, S).
        conditions: the ranges of the transformations.
    """

    generator: torch.Generator | None = None  # `seeded` binds it

    def __init__(self, model: nn.Module, conditions: TransformRanges) -> None:
        super().__init__()
        self.model, self.conditions = model, conditions
        self.training = in_training_mode(model)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, S, S) in [0, 1], each transformed once; border pixels are repeated outside."""
        check_square(x, "Camera")
        if self.generator is None:
            raise ValueError("Camera draws at random and no generator is bound: use `with seeded(model, generator):`")
        noise = RowNoise(x, self.generator)
        transformed = F.grid_sample(x, self.conditions.grid(x, noise), padding_mode="border", align_corners=False)
        logits: Tensor = self.model(self.conditions.relight(transformed, noise))
        return logits


@dataclass(frozen=True)
class PhysicalTransform:
    """A view of a classifier through a camera: a randomised classifier, for `EOT` and all attacks.

    Its transformations are of the kinds of Athalye et al. (2018, arXiv:1707.07397).

    Args:
        conditions: the ranges of the transformations.
    """

    conditions: TransformRanges

    def __call__(self, model: nn.Module) -> nn.Module:
        """Put the camera before a model.

        Args:
            model: classifier of square images (N, C, S, S).

        Returns:
            A classifier, in the mode of `model`, that draws from the generator bound by `seeded`.
        """
        return TransformedModel(model, self.conditions)
