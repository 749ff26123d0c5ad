"""Strong data augmentation, a baseline against poisoning."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.extraction.augmentation import shift_images
from aisec_lab.core import RowNoise
from aisec_lab.defenses.preprocessing.transforms import check_images


@dataclass(frozen=True)
class StrongAugmentation:
    """Cross-entropy on images that are shifted, partly cut out and mixed with another image of the batch.

    A baseline against poisoning (Borgnia et al., 2021, arXiv:2011.09527): mixup (Zhang et al., 2018, arXiv:1710.09412)
    and cutout (DeVries & Taylor, 2017, arXiv:1708.04552), after a random shift with black at the edges. Call contract:
    docs/defenses.md, "Objective"; inputs must be images (N, C, H, W). All draws but the mixing partner are keyed by
    row.

    Args:
        shift: largest shift in each direction, in pixels; 0 for none.
        cut: side of the black square, in pixels; it may lie partly outside the image; 0 for none.
        mix: largest weight of the other image, and of its class in the loss; in [0, 0.5], 0 for none.
    """

    shift: int = 1
    cut: int = 3
    mix: float = 0.5

    def __post_init__(self) -> None:
        if self.shift < 0 or self.cut < 0 or not 0 <= self.mix <= 0.5:
            raise ValueError(f"shift and cut must not be negative, and mix must lie in [0, 0.5]: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        check_images(x, "StrongAugmentation")
        noise = RowNoise(x, generator)
        partner = torch.randperm(len(x), generator=generator).to(y.device)
        augmented = cutout(shift_images(x, noise.integers(-self.shift, self.shift + 1, (2,), 0)), self.cut, noise)
        share = self.mix * noise.uniform((1, 1, 1), 2)  # (N, 1, 1, 1), of the other row
        logits = model((1 - share) * augmented + share * augmented[partner])
        own, other = (F.cross_entropy(logits, label, reduction="none") for label in (y, y[partner]))
        return own + share.flatten() * (other - own)


def cutout(x: Tensor, side: int, noise: RowNoise) -> Tensor:
    """Set a square around a random pixel of each image to 0.

    Args:
        x: images (N, C, H, W).
        side: of the square, in pixels; it may lie partly outside the image.
        noise: keyed by the rows of x; chooses the pixel.

    Returns:
        Images, shape of `x`.
    """
    spans = []
    for axis, length in enumerate(x.shape[2:]):
        first = noise.integers(0, length, (1,), 3 + axis) - side // 2
        place = torch.arange(length, device=x.device)
        spans.append((place >= first) & (place < first + side))  # (N, length)
    return x * ~(spans[0][:, None, :, None] & spans[1][:, None, None, :])
