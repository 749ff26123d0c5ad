"""The per-sample gradients of a convolution."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from aisec_lab.privacy.per_sample_grad import (
    MatmulLayer,
    PerSampleGrad,
    Store,
    capture_backprops,
    detach,
    from_grad_sample,
    is_trainable,
)


def convolution(
    store: Store,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`F.conv2d` on images (N, C, H, W) or `F.conv1d` on sequences (N, C, L): a linear layer on each window.

    Args:
        store: receives the per-sample gradients of weight and bias in the backward pass.
        input, weight, bias, stride, padding, dilation, groups: arguments of the torch function.

    Returns:
        The torch function's output.
    """
    is_1d = weight.ndim == 3  # a sequence is an image of height one
    kernel = weight.unsqueeze(2) if is_1d else weight
    strides, dilations = _both(stride, is_1d, 1), _both(dilation, is_1d, 1)
    if isinstance(padding, str):
        totals = [(padding == "same") * gap * (side - 1) for gap, side in zip(dilations, kernel.shape[2:], strict=True)]
        margins = [(total // 2, total - total // 2) for total in totals]
    else:
        margins = [(margin, margin) for margin in _both(padding, is_1d, 0)]
    pads = [side for margin in reversed(margins) for side in margin]  # left, right, top, bottom

    def compute_grads(activations: Tensor, backprops: Tensor) -> None:
        if bias is not None and is_trainable(bias):
            store(bias, from_grad_sample(backprops.flatten(2).sum(2)))
        if is_trainable(weight):
            if is_1d:
                activations, backprops = activations.unsqueeze(2), backprops.unsqueeze(2)
            store(weight, weight_grad(activations, backprops))

    def weight_grad(activations: Tensor, backprops: Tensor) -> PerSampleGrad:
        output_size, in_features, out_features = backprops.shape[2:], kernel[0].numel(), len(kernel) // groups
        positions = output_size.numel()

        def unfold(part: slice) -> tuple[Tensor, Tensor]:
            windows = unfolded(F.pad(activations[part], pads), kernel.shape[2:], output_size, strides, dilations)
            return windows.reshape(-1, in_features, positions), backprops[part].reshape(-1, out_features, positions)

        def weighted_sum(clip_factors: Tensor) -> Tensor:
            scaled, padded = backprops * clip_factors.view(-1, 1, 1, 1), F.pad(activations, pads)
            grad: Tensor = conv2d_weight(padded, kernel.shape, scaled, strides, 0, dilations, groups)
            return grad.view(weight.shape)

        io_size = activations.shape[1:].numel() + backprops.shape[1:].numel()
        layer = MatmulLayer(len(activations), groups, in_features, out_features, positions, io_size, unfold)
        return layer.per_sample_grad(weight, weighted_sum)

    run: Any = F.conv1d if is_1d else F.conv2d
    output = run(input, detach(weight), detach(bias), stride, padding, dilation, groups)
    return capture_backprops(output, input, weight, compute_grads)


def unfolded(
    x: Tensor, kernel_size: Sequence[int], output_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """A view of padded images x (N, C, H, W) as windows (N, C, *kernel_size, *output_size)."""
    batch_stride, channel_stride, *sides = x.stride()
    inside, between = ([side * by for side, by in zip(sides, apart, strict=True)] for apart in (dilation, stride))
    return x.as_strided(
        (*x.shape[:2], *kernel_size, *output_size),
        (batch_stride, channel_stride, *inside, *between),
        x.storage_offset(),
    )


def _both(setting: int | Sequence[int], is_1d: bool, first: int) -> tuple[int, ...]:
    """A setting for height and width; for a sequence, the height's is `first`."""
    given = (setting,) if isinstance(setting, int) else tuple(setting)
    return (first, *given) if is_1d else given * (2 // len(given))
