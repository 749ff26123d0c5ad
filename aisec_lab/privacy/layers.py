"""The layers of which ghost clipping knows the rows' gradients.

Each takes the arguments of the torch function that it stands for; its output is that function's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.privacy.convolution import convolution
from aisec_lab.privacy.per_sample_grad import (
    Keep,
    Matrices,
    PerSampleGrad,
    detach,
    from_rows,
    is_trained,
    record_gradient,
    row_squares,
)


def linear(keep: Keep, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b on x (N, *, D), one or more places a row."""

    def seen(x: Tensor, grad: Tensor) -> None:
        x, grad = x.reshape(len(x), -1, x.shape[-1]), grad.reshape(len(grad), -1, grad.shape[-1])
        if bias is not None and is_trained(bias):
            keep(bias, from_rows(grad.sum(1)))
        if is_trained(weight):
            keep(weight, of_weight(x, grad))

    def of_weight(x: Tensor, grad: Tensor) -> PerSampleGrad:
        def of(part: slice) -> tuple[Tensor, Tensor]:
            return x[part].transpose(1, 2), grad[part].transpose(1, 2)

        def total(factors: Tensor) -> Tensor:
            return (grad * factors.view(-1, 1, 1)).flatten(0, 1).T @ x.flatten(0, 1)

        rows, places, inputs = x.shape
        outputs = grad.shape[2]
        if places == 1:  # the norm of g x^T is |g| |x|
            return PerSampleGrad((row_squares(x) * row_squares(grad)).to(x.dtype), total)
        numbers = places * (inputs + outputs)
        return Matrices(rows, 1, inputs, outputs, places, numbers, of).share(weight, total)

    return record_gradient(F.linear(input, detach(weight), detach(bias)), input, weight, seen)


def group_norm(
    keep: Keep,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """GroupNorm of x (N, C, *), the batch as one example of N * C channels, so that each row has its own weights."""
    rows, channels = input.shape[:2]
    scale, shift = (None if own is None else own.flatten() for own in (_own(keep, w, rows) for w in (weight, bias)))
    joint = input.reshape(1, rows * channels, -1)
    return F.group_norm(joint, rows * num_groups, scale, shift, eps).view(input.shape)


def layer_norm(
    keep: Keep,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """LayerNorm of x (N, *, *normalized_shape), then scale and shift with weights of each row's own."""
    output = F.layer_norm(input, normalized_shape, eps=eps)
    places = (1,) * (input.ndim - 1 - len(normalized_shape))
    scale, shift = (_own(keep, value, len(input)) for value in (weight, bias))
    if scale is not None:
        output = output * scale.view(len(input), *places, *normalized_shape)
    return output if shift is None else output + shift.view(len(input), *places, *normalized_shape)


def _own(keep: Keep, weight: Tensor | None, rows: int) -> Tensor | None:
    """A copy of the weight for each row (N, *shape); its gradient is the rows', and becomes the weight's share."""
    if weight is None or not is_trained(weight):
        return None if weight is None else weight.expand(rows, *weight.shape)
    own = weight.detach().expand(rows, *weight.shape).contiguous().requires_grad_()
    own.register_hook(lambda grad: keep(weight, from_rows(grad)))
    return own


def embedding(
    keep: Keep,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Vectors of tokens (N, *); a row's square is a sum over pairs of places that hold the same token."""
    if max_norm is not None or scale_grad_by_freq:
        raise ValueError("an embedding with max_norm or scale_grad_by_freq mixes rows: build it without")

    def seen(numbers: Tensor, grad: Tensor) -> None:
        numbers, grad = numbers.reshape(len(numbers), -1), grad.reshape(len(grad), -1, grad.shape[-1])
        if padding_idx is not None:
            grad = grad * (numbers != padding_idx).unsqueeze(2)
        same = numbers.unsqueeze(1) == numbers.unsqueeze(2)  # (N, T, T)
        exact = grad.double()  # the terms may cancel
        squares = ((exact @ exact.transpose(1, 2)) * same).sum((1, 2)).to(grad)

        def total(factors: Tensor) -> Tensor:
            scaled = (grad * factors.view(-1, 1, 1)).flatten(0, 1)
            return torch.zeros_like(weight).index_add_(0, numbers.flatten(), scaled)

        keep(weight, PerSampleGrad(squares, total))

    return record_gradient(F.embedding(input, weight.detach(), padding_idx), input, weight, seen)


LAYERS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.linear: linear,
    F.conv1d: convolution,
    F.conv2d: convolution,
    F.group_norm: group_norm,
    F.layer_norm: layer_norm,
    F.embedding: embedding,
}
