"""Gradient inversion: the rows of a client's batch, reconstructed from the gradient that it sends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.attacks.training_gradients import cosine_distance, signed_adam, training_gradient
from aisec_lab.models.asked import asked
from aisec_lab.models.layers import refuse_opaque


class Reconstruction(NamedTuple):
    """The rows that an attacker reconstructed.

    Args:
        x: inputs (N, *shape), float32 in [0, 1], in no order.
        y: their classes (N,), int64, as given or as inferred.
        distance: cosine distance of their gradient to the observed one, in [0, 2].
    """

    x: Tensor
    y: Tensor
    distance: float


@dataclass(frozen=True)
class GradientInversion:
    """Reconstruct inputs whose gradient has the observed direction (Geiping et al., 2020, arXiv:2003.14053, eq. 4).

    The cosine distance over all parameters plus the total variation of images is minimised inside [0, 1], by Adam on
    the signs of the gradient. The distance ignores lengths, so that a clipped gradient gives away as much as before.

    Args:
        steps: of Adam in each restart, at least 1.
        step_size: of the first steps, in units of the [0, 1] input, positive.
        total_variation: weight of the total variation, at least 0; inputs that are no images have none.
        restarts: from random inputs, at least 1; the one with the smallest distance is kept.

    Raises:
        ValueError: settings out of range.
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
        """Reconstruct the rows of a batch.

        Args:
            model: classifier in evaluation mode, with the weights that the client was sent.
            gradients: of the client's mean cross-entropy, one tensor for each of `model.parameters()`, in their order;
                they may be clipped or noisy. For an update by one step of SGD, the difference of the weights.
            y: classes (N,), int64; None: inferred, for a single row (`infer_label`).
            shape: of one input.
            rows: N, rows of the client's batch.
            generator: source of the starts.

        Returns:
            The reconstruction with the smallest distance.

        Raises:
            ValueError: gradients of other shapes than the parameters', zero or not finite; a class outside 0..K-1;
                several rows without their classes; an opaque model, or one in training mode.
        """
        refuse_opaque(model)
        _check_gradients(model, gradients)
        if y is None:
            if rows != 1:
                raise ValueError(f"classes can be inferred for 1 row, got {rows} rows: give their classes y")
            y = infer_label(gradients)
        starts = [torch.rand(rows, *shape, generator=generator) for _ in range(self.restarts)]
        check(model, starts[0], y)
        with asked(model):
            check_answer(model(starts[0]), y)
            return min((self._descend(model, gradients, x, y) for x in starts), key=lambda tried: tried.distance)

    def _descend(self, model: nn.Module, gradients: Sequence[Tensor], start: Tensor, y: Tensor) -> Reconstruction:
        """One restart."""

        def distance(x: Tensor) -> Tensor:
            return cosine_distance(gradients, training_gradient(model, x, y))

        x = signed_adam(
            start,
            lambda x: distance(x) + self.total_variation * total_variation(x),
            lambda x: x.clamp(0, 1),
            steps=self.steps,
            step_size=self.step_size,
        )
        return Reconstruction(x, y, distance(x).item())


def infer_label(gradients: Sequence[Tensor]) -> Tensor:
    """iDLG: infer the class of a single row from its gradient (Zhao et al., 2020, arXiv:2001.02610, eq. 3).

    For class c the gradient of the last bias is p_c - 1 if it is the row's class, else p_c: only the row's class has a
    negative one. The gradient of the last weights is that times the features. A last layer without a bias therefore
    needs non-negative features, as ReLU gives them.

    Args:
        gradients: of all parameters, in their order; the last layer is linear.

    Returns:
        The class (1,), int64.
    """
    last = gradients[-1]
    by_class = last if last.ndim == 1 else last.flatten(1).sum(1)  # (K,)
    return by_class.argmin().view(1)


def first_layer_input(weight: Tensor, bias: Tensor) -> Tensor:
    """Compute the exact input of a linear layer with a bias from the gradient of a single row.

    Each output's weight gradient is the input times its bias gradient (Phong et al., 2018, section III; Geiping et
    al., 2020, proposition 3.1). For several rows the result is a mixture of their inputs. The layer's input is the
    image only where no normalisation comes before it.

    Args:
        weight: gradient of the weights (O, D).
        bias: gradient of the bias (O,).

    Returns:
        The input (D,), from the output whose bias has the largest gradient.

    Raises:
        ValueError: every bias gradient is zero, as after a dead ReLU.
    """
    largest = bias.abs().argmax()
    if bias[largest] == 0:
        raise ValueError("all gradients of the bias are zero, so the input is not determined: use GradientInversion")
    return weight[largest] / bias[largest]


def total_variation(x: Tensor) -> Tensor:
    """The anisotropic total variation of images, as a mean.

    Args:
        x: images (N, C, H, W), or other inputs.

    Returns:
        A scalar: the mean absolute difference of vertical neighbours plus that of horizontal ones; 0 for other inputs.
    """
    if x.ndim != 4:
        return x.new_zeros(())
    sides = [x.diff(dim=axis) for axis in (2, 3) if x.shape[axis] > 1]
    return torch.stack([side.abs().mean() for side in sides]).sum() if sides else x.new_zeros(())


def _check_gradients(model: nn.Module, gradients: Sequence[Tensor]) -> None:
    """Refuse gradients that cannot be those of the model."""
    expected, got = ([tuple(part.shape) for part in parts] for parts in (model.parameters(), gradients))
    if expected != got:
        raise ValueError(f"there must be a gradient for each parameter, of shapes {expected}, got {got}")
    if not all(part.isfinite().all() for part in gradients) or not any(part.any() for part in gradients):
        raise ValueError("the gradients must be finite and not all zero: the client's batch may have been empty")
