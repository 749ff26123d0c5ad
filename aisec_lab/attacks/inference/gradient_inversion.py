"""Gradient inversion: the rows behind a client's update, from the update."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.attacks.poisoning.gradient_matching import mismatch, training_gradient
from aisec_lab.models.asked import asked
from aisec_lab.models.layers import refuse_opaque

DECAY = 0.1  # of the step, after 3/8, 5/8 and 7/8 of them, as the authors have it


class Reconstruction(NamedTuple):
    """What an attacker believes the rows to be.

    Args:
        x: inputs (N, *shape), float32 in [0, 1]; their order means nothing.
        y: their classes (N,), int64, as given or as inferred.
        distance: one minus the cosine of their gradient and the one that was seen, in [0, 2].
    """

    x: Tensor
    y: Tensor
    distance: float


@dataclass(frozen=True)
class GradientInversion:
    """Inputs whose gradient points the way that the client's does (Geiping et al., 2020, arXiv:2003.14053, eq. 4).

    Cosine distance over all parameters and the total variation of images, minimised inside [0, 1] by Adam on the signs
    of the gradient. The distance knows no length, so a gradient that was clipped tells as much as before.

    Args:
        steps: of Adam, a restart.
        step_size: the first ones, in units of the box.
        total_variation: weight of the prior on images; tables have none.
        restarts: from random inputs; the one that ends nearest to the gradient is kept.

    Args of the call:
        model: classifier in evaluation mode, with the weights that the client was sent.
        gradients: of the client's mean cross-entropy, one tensor for each of `model.parameters()`, in their order;
            they may be clipped or noisy. For an update by one SGD step: the difference of the weights.
        y: classes (N,), int64. None: inferred, for a single row (`inferred_class`).
        shape: of one input.
        rows: N, how many rows the client's batch had.
        generator: source of the starts.

    Returns:
        The reconstruction with the least distance.

    Raises:
        ValueError: gradients that are not those of the model, zero or not finite; a class outside 0..K-1; several rows
            without their classes.
    """

    steps: int = 4800
    step_size: float = 0.1
    total_variation: float = 0.0001
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or not self.step_size > 0 or not self.total_variation >= 0:
            raise ValueError(f"steps, restarts, step_size must be positive, total_variation not negative: {self}")

    def __call__(
        self,
        model: nn.Module,
        gradients: Sequence[Tensor],
        *,
        y: Tensor | None = None,
        shape: tuple[int, ...],
        rows: int,
        generator: torch.Generator,
    ) -> Reconstruction:
        refuse_opaque(model)
        _check_gradients(model, gradients)
        if y is None:
            if rows != 1:
                raise ValueError(f"classes can be inferred for 1 row, got {rows} rows: give their classes y")
            y = inferred_class(gradients)
        starts = [torch.rand(rows, *shape, generator=generator) for _ in range(self.restarts)]
        check(model, starts[0], y)
        with asked(model):
            check_answer(model(starts[0]), y)
            return min((self._descend(model, gradients, x, y) for x in starts), key=lambda tried: tried.distance)

    def _descend(self, model: nn.Module, gradients: Sequence[Tensor], start: Tensor, y: Tensor) -> Reconstruction:
        x = start.clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=self.step_size)
        milestones = [self.steps * part // 8 for part in (3, 5, 7)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(adam, milestones, DECAY)
        for _ in range(self.steps):
            cost = mismatch(gradients, training_gradient(model, x, y)) + self.total_variation * variation(x)
            (grad,) = torch.autograd.grad(cost, x)
            x.grad = grad.sign()
            adam.step()
            schedule.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        distance = mismatch(gradients, training_gradient(model, x, y)).item()
        return Reconstruction(x.detach(), y, distance)


def inferred_class(gradients: Sequence[Tensor]) -> Tensor:
    """The class of a single row (Zhao et al., 2020, arXiv:2001.02610, eq. 3): the gradient that is negative is its own.

    In class c the gradient of the last bias is p_c - 1 for the row's class and p_c for others; the last weights' is
    that times the features, which a layer without a bias must have non-negative (ReLU).

    Args:
        gradients: of all parameters, in their order; the last layer is linear.

    Returns:
        The class (1,), int64.
    """
    last = gradients[-1]
    by_class = last if last.ndim == 1 else last.flatten(1).sum(1)  # (K,)
    return by_class.argmin().view(1)


def first_layer_input(weight: Tensor, bias: Tensor) -> Tensor:
    """The input of a linear layer with a bias, exactly, from the gradient of a single row.

    Each output's weight gradient is the input times its bias gradient (Phong et al., 2018, section III; Geiping et
    al., 2020, proposition 3.1). Of several rows it is a mixture. The layer's input is the image only where no
    normalisation stands before it.

    Args:
        weight: gradient of the weights (O, D).
        bias: gradient of the bias (O,).

    Returns:
        The input (D,), by the output whose bias has the largest gradient.

    Raises:
        ValueError: every bias gradient is zero, as behind a dead ReLU.
    """
    loudest = bias.abs().argmax()
    if bias[loudest] == 0:
        raise ValueError("all gradients of the bias are zero, so that the layer tells nothing: use GradientInversion")
    return weight[loudest] / bias[loudest]


def variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, down and across, of images (N, C, H, W); of other rows, 0."""
    if x.ndim != 4:
        return x.new_zeros(())
    sides = [x.diff(dim=axis) for axis in (2, 3) if x.shape[axis] > 1]
    return torch.stack([side.abs().mean() for side in sides]).sum() if sides else x.new_zeros(())


def _check_gradients(model: nn.Module, gradients: Sequence[Tensor]) -> None:
    expected, got = ([tuple(part.shape) for part in parts] for parts in (model.parameters(), gradients))
    if expected != got:
        raise ValueError(f"there must be a gradient for each parameter, of shapes {expected}, got {got}")
    if not all(part.isfinite().all() for part in gradients) or not any(part.any() for part in gradients):
        raise ValueError("the gradients must be finite and not all zero: the client's batch may have been empty")
