"""Strong augmentation: rows that never look the same twice, so that a mark on some of them is hard to learn."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.extraction.augmentation import shift_images
from aisec_lab.core import RowNoise
from aisec_lab.defenses.preprocessing.transforms import check_images


@dataclass(frozen=True)
class Augmented:
    """Cross-entropy on shifted images with a patch cut out, blended with another row of the batch.

    A baseline against poisoning (Borgnia et al., 2021, arXiv:2011.09527): mixup (Zhang et al., 2018, arXiv:1710.09412)
    and cutout (DeVries & Taylor, 2017, arXiv:1708.04552), after a random shift with black at the edges.

    Args:
        shift: the most pixels that an image moves, in each direction.
        cut: side of the black square, which may lie partly outside, in pixels; 0 for none.
        mix: the most that another row shows; its class has the same share of the loss. 0 for none, at most 0.5.

    Args of the call: as for `Standard`; images (N, C, H, W). All draws but the partner's are a row's own.

    Raises:
        ValueError: inputs that are no images.
    """

    shift: int = 1
    cut: int = 3
    mix: float = 0.5

    def __post_init__(self) -> None:
        if self.shift < 0 or self.cut < 0 or not 0 <= self.mix <= 0.5:
            raise ValueError(f"shift and cut must not be negative, and mix must lie in [0, 0.5]: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        check_images(x, "Augmented")
        noise = RowNoise(x, generator)
        partner = torch.randperm(len(x), generator=generator).to(y.device)
        seen = cut_out(shift_images(x, noise.integers(-self.shift, self.shift + 1, (2,), 0)), self.cut, noise)
        share = self.mix * noise.uniform((1, 1, 1), 2)  # (N, 1, 1, 1), of the other row
        logits = model((1 - share) * seen + share * seen[partner])
        own, other = (F.cross_entropy(logits, label, reduction="none") for label in (y, y[partner]))
        return own + share.flatten() * (other - own)


def cut_out(x: Tensor, side: int, noise: RowNoise) -> Tensor:
    """Images (N, C, H, W), each with a black square around a pixel that its noise chooses."""
    spans = []
    for axis, length in enumerate(x.shape[2:]):
        first = noise.integers(0, length, (1,), 3 + axis) - side // 2
        place = torch.arange(length, device=x.device)
        spans.append((place >= first) & (place < first + side))  # (N, length)
    return x * ~(spans[0][:, None, :, None] & spans[1][:, None, None, :])
