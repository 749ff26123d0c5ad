"""MI-FGSM: attacks that are made on a surrogate model to transfer to another one."""

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

COUNTERS = 4  # noise counters of one step


@dataclass(frozen=True)
class MIFGSM:
    """MI-FGSM, optionally with input diversity (DIM) and a translation-invariant gradient (TIM), for transfer attacks.

    - momentum (Dong et al., 2018, arXiv:1710.06081, algorithm 1);
    - input diversity (Xie et al., 2019, arXiv:1803.06978, section 3.3): before a gradient is taken, each image is, with
      probability `diversity`, shrunk to a random size and padded with zeros at a random position;
    - translation invariance (Dong et al., 2019, arXiv:1904.02884, section 3.3): the gradient is smoothed by a Gaussian.

    Call contract: docs/evasion-attacks.md. The model of the call is the surrogate.

    Args:
        ball: the threat model: Linf, L2, L1 or L0.
        steps: iterations.
        step_size: length of a step, in units of eps.
        decay: the decay factor mu of the momentum, at least 0.
        diversity: probability in [0, 1] of a transformed input; images (N, C, H, W) only.
        min_size: smallest size of a shrunk image, as a share in (0, 1] of its own.
        kernel: side of the Gaussian kernel in pixels, odd; 1 leaves the gradient as it is. Images only.
        loss: what is maximised; of logits (N, K) and `y`.
        goal: whether the loss against `y` rises or falls.

    Returns:
        Of the call: inputs, shape of `x`, inside ball and box: each row after the last step, adversarial for the
        surrogate or not, since the victim is another model.

    Raises:
        ValueError: settings outside their ranges; inputs that are no images with `diversity` or `kernel`; and what the
            call contract lists.
    """

    ball: Ball
    steps: int = 10
    step_size: float = 0.1
    decay: float = 1.0
    diversity: float = 0.0
    min_size: float = 0.9
    kernel: int = 1
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("MIFGSM", self.ball)
        if self.steps < 1 or not self.step_size > 0 or not self.decay >= 0:
            raise ValueError(f"steps and step_size must be positive, decay at least 0: {self}")
        if not 0 <= self.diversity <= 1 or not 0 < self.min_size <= 1:
            raise ValueError(f"diversity must be in [0, 1] and min_size in (0, 1]: {self}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and at least 1, got {self.kernel}")
        warn_of_short_steps("MIFGSM", self.steps, self.step_size, min_distance=FROM_CENTRE)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        if x.ndim != 4 and (self.diversity or self.kernel > 1):
            raise ValueError(f"diversity and kernel are for images (N, C, H, W), got shape {tuple(x.shape)}")
        noise = RowNoise(x, generator)
        delta, g = torch.zeros_like(x), torch.zeros_like(x)
        with scored(model):
            objective = signed_loss(self.loss, self.goal, y)
            for step in range(self.steps):
                maps = self._diversity_maps(x, noise, COUNTERS * step) if self.diversity else None
                diversified = model if maps is None else lambda z, maps=maps: model(apply_affine(z, maps))
                _, _, grad = loss_and_gradient(diversified, x + delta, objective)
                if self.kernel > 1:
                    grad = smooth_gradient(grad, self.kernel)
                g = self.decay * g + grad / per_row(grad.flatten(1).abs().mean(1) + TINY, grad)
                stepped = delta + self.step_size * self.ball.eps * self.ball.ascent_direction(g)
                delta = self.ball.project(x, stepped)
        return x + delta

    def _diversity_maps(self, x: Tensor, noise: RowNoise, counter: int) -> Tensor:
        """Affine maps (N, 2, 3) from positions in transformed images to those in the originals, both in [-1, 1]."""
        maps = []
        diverse = noise.uniform((), counter) < self.diversity
        size = x.new_tensor(x.shape[:1:-1])  # width, height
        share = self.min_size + (1 - self.min_size) * noise.uniform((), counter + 1)
        small = torch.where(diverse[:, None], (share[:, None] * size).round().clamp(min=1), size)  # (N, 2)
        room = size - small
        left = torch.floor(noise.uniform((2,), counter + 2) * (room + 1))
        scale, shift = size / small, (room - 2 * left) / small
        for axis in range(2):
            row = x.new_zeros(len(x), 3)
            row[:, axis], row[:, 2] = scale[:, axis], shift[:, axis]
            maps.append(row)
        return torch.stack(maps, 1)


def apply_affine(z: Tensor, maps: Tensor) -> Tensor:
    """Images (N, C, H, W) resampled through affine maps (N, 2, 3): bilinear, zero outside."""
    grid = F.affine_grid(maps, list(z.shape), align_corners=False)
    return F.grid_sample(z, grid, align_corners=False)


def smooth_gradient(grad: Tensor, size: int) -> Tensor:
    """Smooth each channel by a Gaussian kernel, cut off at three standard deviations.

    Args:
        grad: gradients (N, C, H, W).
        size: side of the kernel in pixels, odd.

    Returns:
        Shape of `grad`.
    """
    line = torch.exp(-(torch.linspace(-3, 3, size, dtype=grad.dtype, device=grad.device) ** 2) / 2)
    line = line / line.sum()
    kernel = torch.outer(line, line).expand(grad.shape[1], 1, size, size)
    return F.conv2d(grad, kernel, padding="same", groups=grad.shape[1])
