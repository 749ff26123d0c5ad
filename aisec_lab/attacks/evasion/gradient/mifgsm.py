"""Attacks made on one model to be used on another: what keeps a perturbation from fitting its surrogate too well."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import Ball, check_ball
from aisec_lab.attacks.evasion.geometry.projections import TINY, per_row
from aisec_lab.attacks.evasion.gradient.step_warnings import FROM_CENTRE, warn_of_short_steps
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, signed_loss
from aisec_lab.core.row_noise import RowNoise

DRAWS = 4  # counters that belong to one step


@dataclass(frozen=True)
class MIFGSM:
    """Iterated FGSM with momentum, and on request input diversity and a translation-invariant gradient.

    - momentum (Dong et al., 2018, arXiv:1710.06081, algorithm 1): `decay` is mu;
    - input diversity (Xie et al., 2019, arXiv:1803.06978, section 3.3): with probability `diversity`, an image is
      shrunk to a random size from `smallest` of its own up and put at a random place of a black one before the
      surrogate sees it;
    - translation invariance (Dong et al., 2019, arXiv:1904.02884, section 3.3): the gradient is smoothed by a
      Gaussian kernel of `kernel` x `kernel` pixels.

    Args of the call:
        model: the surrogate, a classifier in evaluation mode; inputs in [0, 1], shape (N, *input), images
            (N, C, H, W) for diversity and kernel, to logits (N, K).
        x, y: clean inputs and their true classes (N,), int64; with the goal `Targeted`, the targets.
        generator: source of the sizes and places.

    Returns:
        Adversarial inputs, shape of `x`, inside ball and box: the last point of each row, whether or not the
        surrogate has fallen before, since the victim is another.

    Raises:
        ValueError: inputs that are no images where they have to be, and what `PGD` refuses.
    """

    ball: Ball
    steps: int = 10
    step_size: float = 0.1  # in units of eps
    decay: float = 1.0
    diversity: float = 0.0
    smallest: float = 0.9
    kernel: int = 1
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("MIFGSM", self.ball)
        if self.steps < 1 or not self.step_size > 0 or not self.decay >= 0:
            raise ValueError(f"steps and step_size must be positive, decay at least 0: {self}")
        if not 0 <= self.diversity <= 1 or not 0 < self.smallest <= 1:
            raise ValueError(f"diversity must be in [0, 1] and smallest in (0, 1]: {self}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and at least 1, got {self.kernel}")
        warn_of_short_steps("MIFGSM", self.steps, self.step_size, fewest=FROM_CENTRE)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        if x.ndim != 4 and (self.diversity or self.kernel > 1):
            raise ValueError(f"diversity and kernel are for images (N, C, H, W), got shape {tuple(x.shape)}")
        noise = RowNoise(x, generator)
        delta, g = torch.zeros_like(x), torch.zeros_like(x)
        with scored(model):
            ascended = signed_loss(self.loss, self.goal, y)
            for step in range(self.steps):
                where = self._where(x, noise, DRAWS * step) if self.diversity else None
                seen = model if where is None else lambda z, where=where: model(_resampled(z, where))
                _, _, grad = loss_and_gradient(seen, x + delta, ascended)
                if self.kernel > 1:
                    grad = smooth_gradient(grad, self.kernel)
                g = self.decay * g + grad / per_row(grad.flatten(1).abs().mean(1) + TINY, grad)
                step_to = delta + self.step_size * self.ball.eps * self.ball.ascent_direction(g)
                delta = self.ball.project(x, step_to)
        return x + delta

    def _where(self, x: Tensor, noise: RowNoise, counter: int) -> Tensor:
        """The affine maps (N, 2, 3) from places in what the surrogate sees to places in the image; both in [-1, 1]."""
        maps = []
        diverse = noise.uniform((), counter) < self.diversity
        size = x.new_tensor(x.shape[:1:-1])  # width, height
        share = self.smallest + (1 - self.smallest) * noise.uniform((), counter + 1)
        small = torch.where(diverse[:, None], (share[:, None] * size).round().clamp(min=1), size)  # (N, 2)
        room = size - small
        left = torch.floor(noise.uniform((2,), counter + 2) * (room + 1))
        scale, shift = size / small, (room - 2 * left) / small
        for axis in range(2):
            row = x.new_zeros(len(x), 3)
            row[:, axis], row[:, 2] = scale[:, axis], shift[:, axis]
            maps.append(row)
        return torch.stack(maps, 1)


def _resampled(z: Tensor, where: Tensor) -> Tensor:
    """Images (N, C, H, W) seen through affine maps (N, 2, 3), bilinear, black outside."""
    grid = F.affine_grid(where, list(z.shape), align_corners=False)
    return F.grid_sample(z, grid, align_corners=False)


def smooth_gradient(grad: Tensor, size: int) -> Tensor:
    """Each channel of (N, C, H, W) under a Gaussian kernel of odd size, cut off at three standard deviations."""
    line = torch.exp(-(torch.linspace(-3, 3, size, dtype=grad.dtype, device=grad.device) ** 2) / 2)
    line = line / line.sum()
    kernel = torch.outer(line, line).expand(grad.shape[1], 1, size, size)
    return F.conv2d(grad, kernel, padding="same", groups=grad.shape[1])
