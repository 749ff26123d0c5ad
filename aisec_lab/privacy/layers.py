"""The layers that ghost clipping supports: torch functions that also compute per-sample gradients.

Each takes `store`, which receives the per-sample gradients of each trainable parameter in the backward pass, then the
arguments of the torch function that it replaces. It returns that function's output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.privacy.convolution import convolution
from aisec_lab.privacy.per_sample_grad import (
    MatmulLayer,
    PerSampleGrad,
    Store,
    capture_backprops,
    detach,
    from_grad_sample,
    is_trainable,
    squared_norms,
)


def linear(store: Store, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x W^T + b on x (N, *, D), at one or more positions per sample."""

    def compute_grads(activations: Tensor, backprops: Tensor) -> None:
        activations = activations.reshape(len(activations), -1, activations.shape[-1])  # (N, T, D)
        backprops = backprops.reshape(len(backprops), -1, backprops.shape[-1])  # (N, T, P)
        if bias is not None and is_trainable(bias):
            store(bias, from_grad_sample(backprops.sum(1)))
        if is_trainable(weight):
            store(weight, weight_grad(activations, backprops))

    def weight_grad(activations: Tensor, backprops: Tensor) -> PerSampleGrad:
        def unfold(part: slice) -> tuple[Tensor, Tensor]:
            return activations[part].transpose(1, 2), backprops[part].transpose(1, 2)

        def weighted_sum(clip_factors: Tensor) -> Tensor:
            return (backprops * clip_factors.view(-1, 1, 1)).flatten(0, 1).T @ activations.flatten(0, 1)

        batch_size, positions, in_features = activations.shape
        out_features = backprops.shape[2]
        if positions == 1:  # the norm of the outer product b a^T is |b| |a|
            squares = squared_norms(activations) * squared_norms(backprops)
            return PerSampleGrad(squares.to(activations.dtype), weighted_sum)
        io_size = positions * (in_features + out_features)
        layer = MatmulLayer(batch_size, 1, in_features, out_features, positions, io_size, unfold)
        return layer.per_sample_grad(weight, weighted_sum)

    return capture_backprops(F.linear(input, detach(weight), detach(bias)), input, weight, compute_grads)


def group_norm(
    store: Store,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`F.group_norm` of x (N, C, *), computed as one sample of N * C channels, so that each sample has own weights."""
    batch_size, channels = input.shape[:2]
    scale, shift = (
        None if own is None else own.flatten() for own in (_expand(store, w, batch_size) for w in (weight, bias))
    )
    joint = input.reshape(1, batch_size * channels, -1)
    return F.group_norm(joint, batch_size * num_groups, scale, shift, eps).view(input.shape)


def layer_norm(
    store: Store,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`F.layer_norm` of x (N, *, *normalized_shape), then scale and shift with a copy of the weights per sample."""
    output = F.layer_norm(input, normalized_shape, eps=eps)
    positions = (1,) * (input.ndim - 1 - len(normalized_shape))
    scale, shift = (_expand(store, value, len(input)) for value in (weight, bias))
    if scale is not None:
        output = output * scale.view(len(input), *positions, *normalized_shape)
    return output if shift is None else output + shift.view(len(input), *positions, *normalized_shape)


def _expand(store: Store, weight: Tensor | None, batch_size: int) -> Tensor | None:
    """A copy of the weight for each sample (N, *shape); the copies' gradients are the per-sample gradients."""
    if weight is None or not is_trainable(weight):
        return None if weight is None else weight.expand(batch_size, *weight.shape)
    own = weight.detach().expand(batch_size, *weight.shape).contiguous().requires_grad_()
    own.register_hook(lambda grad_sample: store(weight, from_grad_sample(grad_sample)))
    return own


def embedding(
    store: Store,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`F.embedding` of tokens (N, *); a squared norm is a sum over pairs of positions that hold the same token.

    Raises:
        ValueError: `max_norm` or `scale_grad_by_freq`, which mix the samples of a batch.
    """
    if max_norm is not None or scale_grad_by_freq:
        raise ValueError("an embedding with max_norm or scale_grad_by_freq mixes rows: build it without")

    def compute_grads(tokens: Tensor, backprops: Tensor) -> None:
        tokens = tokens.reshape(len(tokens), -1)  # (N, T)
        backprops = backprops.reshape(len(backprops), -1, backprops.shape[-1])  # (N, T, P)
        if padding_idx is not None:
            backprops = backprops * (tokens != padding_idx).unsqueeze(2)
        same_token = tokens.unsqueeze(1) == tokens.unsqueeze(2)  # (N, T, T)
        exact = backprops.double()  # the terms may cancel
        squares = ((exact @ exact.transpose(1, 2)) * same_token).sum((1, 2)).to(backprops)

        def weighted_sum(clip_factors: Tensor) -> Tensor:
            scaled = (backprops * clip_factors.view(-1, 1, 1)).flatten(0, 1)
            return torch.zeros_like(weight).index_add_(0, tokens.flatten(), scaled)

        store(weight, PerSampleGrad(squares, weighted_sum))

    return capture_backprops(F.embedding(input, weight.detach(), padding_idx), input, weight, compute_grads)


LAYERS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.linear: linear,
    F.conv1d: convolution,
    F.conv2d: convolution,
    F.group_norm: group_norm,
    F.layer_norm: layer_norm,
    F.embedding: embedding,
}
