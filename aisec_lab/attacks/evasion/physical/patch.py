"""Adversarial patches and stickers: a print, learned once, that is put on a part of any image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.evasion.adaptive import View
from aisec_lab.attacks.evasion.attack import prepare_inputs, scored_model
from aisec_lab.attacks.evasion.geometry.projections import normalise_gradient
from aisec_lab.attacks.evasion.gradient.universal import BETA
from aisec_lab.attacks.evasion.physical.conditions import TransformRanges, check_square
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted, check_untargeted, with_target
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import signed_loss
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.core.validation import check_inputs
from aisec_lab.data import Dataset
from aisec_lab.models import seeded


@dataclass(frozen=True, eq=False)
class Patch:
    """A print, as an attack: put on every image, at a random position, angle and brightness for each row.

    The patch of Brown et al. (2017, arXiv:1712.09665).

    Call contract: docs/evasion-attacks.md, for square images (N, C, S, S); model and `y` have no effect.

    Args:
        pixels: the print (C, s, s) in [0, 1].
        size: its side, a share of the image's.
        centre: its centre without shift, from left and top, in shares of the image's side.
        placement: the ranges of rotation, scale, shift and brightness.

    Returns:
        Of the call: images, shape of `x`, in [0, 1]; outside the print they equal `x` bit for bit.

    Raises:
        ValueError: images that are not square, and what the call contract lists.
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
        """Put the print on images; differentiable in its pixels.

        Args:
            x: square images (N, C, S, S).
            noise: of the rows.

        Returns:
            Shape of `x`; at the print's soft edge a mean of both.
        """
        grid = self.placement.grid(x, noise, centre=self.centre, size=self.size)
        prints = self.placement.relight(self.pixels.to(x).expand(len(x), -1, -1, -1), noise)
        layers = torch.cat([prints, torch.ones_like(prints[:, :1])], 1)
        sampled = F.grid_sample(layers, grid, padding_mode="zeros", align_corners=False)
        covered, mask = sampled[:, :-1], sampled[:, -1:]
        return torch.where(mask > 0, (covered + (1 - mask) * x).clamp(0, 1), x)


@dataclass(frozen=True)
class AdversarialPatch:
    """Learn a print by expectation over transformation, with step sizes that fall linearly to zero.

    At random positions, it is the patch of Brown et al. (2017, arXiv:1712.09665, section 2); at one position of an
    object that is seen through a camera, the sticker of Eykholt et al. (2018, arXiv:1707.08945, section 3). Any pixel
    in [0, 1] counts as printable. Each row's loss is clipped at the beta of `Universal`.

    Args:
        size: side of the print, a share in (0, 1] of the image's.
        centre: its centre without shift, from left and top, in shares of the image's side.
        placement: the ranges of rotation, scale, shift and brightness.
        camera: view of the whole image, for a sticker; None for the image as it is.
        epochs: passes over the rows; each row under new conditions each time.
        batch_size: rows of a batch.
        step_size: of the first step: the largest change of a pixel, whose range is [0, 1].
        loss: what is maximised, of logits and true classes; no effect with a target.
        goal: of the loss, not `Targeted`; no effect with a target.
        target: the class that every image shall get; None for any wrong one.

    Raises:
        ValueError: settings outside their ranges, images that are not square, and what the call contract lists.
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
        """Learn the print.

        Args:
            train: square images in [0, 1] and their true classes.
            model: classifier in evaluation mode.
            generator: source of the order of the rows and of all conditions.

        Returns:
            The print, as an attack.
        """
        check_inputs(model, train.x, train.y)
        check_square(train.x, "AdversarialPatch")
        goal, y = with_target(self.goal, train.y, self.target)
        side = max(1, round(self.size * train.shape[1]))
        pixels = torch.full((train.shape[0], side, side), 0.5)
        viewed = model if self.camera is None else self.camera(model)
        steps = self.epochs * -(-len(train) // self.batch_size)
        step = 0
        with scored_model(viewed), seeded(viewed, generator):
            for _ in range(self.epochs):
                for rows in torch.randperm(len(train), generator=generator).split(self.batch_size):
                    pixels.requires_grad_()
                    z = self._patch(pixels).apply(train.x[rows], RowNoise(train.x[rows], generator))
                    losses = signed_loss(self.loss, goal, y[rows])(viewed(z)).clamp(max=BETA)
                    (grad,) = torch.autograd.grad(losses.mean(), pixels)
                    length = self.step_size * (1 - step / steps)
                    pixels = (pixels.detach() + length * normalise_gradient(grad[None])[0]).clamp(0, 1)
                    step += 1
        return self._patch(pixels)

    def _patch(self, pixels: Tensor) -> Patch:
        return Patch(pixels, self.size, self.centre, self.placement)
