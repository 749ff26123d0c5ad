"""Adversarial patches and stickers: a print, learned once, that is put over a part of any image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.evasion.adaptive import View
from aisec_lab.attacks.evasion.attack import check, prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.projections import normalise_gradient
from aisec_lab.attacks.evasion.gradient.universal import BETA
from aisec_lab.attacks.evasion.physical.conditions import TransformRanges, check_square
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted, check_untargeted, with_target
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import signed_loss
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.data import Dataset
from aisec_lab.models import seeded


@dataclass(frozen=True, eq=False)
class Patch:
    """A print, as an attack: put over every image, at a place, an angle and in a light drawn for each row.

    Args:
        pixels: the print (C, s, s) in [0, 1].
        size: its side, a share of the image's.
        centre: where its middle is, from left and top, in shares of the image's side, before any shift.
        placement: how it is put there.

    Args of the call:
        model, y: the classifier and the classes; looked at only to refuse what `PGD` refuses.
        x: square images (N, C, S, S) in [0, 1].
        generator: source of the placements, keyed by row.

    Returns:
        Images, shape of `x`, in [0, 1]; outside the print they are those of `x` to the bit.

    Raises:
        ValueError: images that are not square, and what `PGD` refuses.
    """

    pixels: Tensor
    size: float
    centre: tuple[float, float] = (0.5, 0.5)
    placement: TransformRanges = TransformRanges()

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        check_square(x, "Patch")
        return self.apply(x, RowNoise(x, generator))

    def apply(self, x: Tensor, noise: RowNoise) -> Tensor:
        """The print over images x, differentiable in its pixels; at its edge, which is soft, a mean of both."""
        grid = self.placement.grid(x, noise, centre=self.centre, size=self.size)
        prints = self.placement.lit(self.pixels.to(x).expand(len(x), -1, -1, -1), noise)
        layers = torch.cat([prints, torch.ones_like(prints[:, :1])], 1)
        sampled = F.grid_sample(layers, grid, padding_mode="zeros", align_corners=False)
        covered, mask = sampled[:, :-1], sampled[:, -1:]
        return torch.where(mask > 0, (covered + (1 - mask) * x).clamp(0, 1), x)


@dataclass(frozen=True)
class AdversarialPatch:
    """Learn a print by expectation over transformation, with steps along the scaled gradient that shrink to zero.

    Put anywhere, it is the patch of Brown et al. (2017, arXiv:1712.09665, section 2); at one place of an object that is
    seen through a camera, the sticker of Eykholt et al. (2018, arXiv:1707.08945, section 3). What can be printed is
    [0, 1]. A row's loss is cut off as for `Universal`.

    Args:
        size, centre, placement: as for `Patch`.
        camera: how the whole image is seen, for a sticker; None if it is seen as it is.
        epochs, batch_size: passes over the rows, each row under new conditions each time.
        step_size: of the first step; the largest change of a pixel, whose range is 1.
        loss, goal: what ascends for the images' true classes; without effect where there is a target.
        target: the class that every image is to get; None for any wrong one.

    Args of the call:
        train: images and their true classes.
        model: classifier in evaluation mode.
        generator: order of the rows, and all that is drawn.

    Returns:
        An evasion attack.

    Raises:
        ValueError: what `Patch` refuses.
    """

    size: float
    centre: tuple[float, float] = (0.5, 0.5)
    placement: TransformRanges = TransformRanges()
    camera: View | None = None
    epochs: int = 10
    batch_size: int = 64
    step_size: float = 0.1
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()
    target: int | None = None

    def __post_init__(self) -> None:
        check_untargeted(self.goal)
        if not 0 < self.size <= 1 or not all(0 <= place <= 1 for place in self.centre):
            raise ValueError(f"size and centre are shares of the image's side, in (0, 1] and [0, 1]: {self}")
        if self.epochs < 1 or self.batch_size < 1 or not self.step_size > 0:
            raise ValueError(f"epochs, batch_size and step_size must be positive: {self}")

    def __call__(self, train: Dataset, *, model: nn.Module, generator: torch.Generator) -> Patch:
        check(model, train.x, train.y)
        check_square(train.x, "AdversarialPatch")
        goal, y = with_target(self.goal, train.y, self.target)
        side = max(1, round(self.size * train.shape[1]))
        pixels = torch.full((train.shape[0], side, side), 0.5)
        seen = model if self.camera is None else self.camera(model)
        steps = self.epochs * -(-len(train) // self.batch_size)
        step = 0
        with scored(seen), seeded(seen, generator):
            for _ in range(self.epochs):
                for rows in torch.randperm(len(train), generator=generator).split(self.batch_size):
                    pixels.requires_grad_()
                    z = self._patch(pixels).apply(train.x[rows], RowNoise(train.x[rows], generator))
                    losses = signed_loss(self.loss, goal, y[rows])(seen(z)).clamp(max=BETA)
                    (grad,) = torch.autograd.grad(losses.mean(), pixels)
                    length = self.step_size * (1 - step / steps)
                    pixels = (pixels.detach() + length * normalise_gradient(grad[None])[0]).clamp(0, 1)
                    step += 1
        return self._patch(pixels)

    def _patch(self, pixels: Tensor) -> Patch:
        return Patch(pixels, self.size, self.centre, self.placement)
