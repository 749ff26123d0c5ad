"""The rows' gradients of a convolution."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from aisec_lab.privacy.per_sample_grad import (
    Keep,
    Matrices,
    PerSampleGrad,
    detach,
    from_rows,
    is_trained,
    record_gradient,
)


def convolution(
    keep: Keep,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of images (N, C, H, W) or sequences (N, C, L): a linear layer on the windows of each row."""
    flat = weight.ndim == 3  # a sequence is an image of height one
    kernel = weight.unsqueeze(2) if flat else weight
    steps, gaps = _both(stride, flat, 1), _both(dilation, flat, 1)
    if isinstance(padding, str):
        whole = [(padding == "same") * gap * (side - 1) for gap, side in zip(gaps, kernel.shape[2:], strict=True)]
        margins = [(every // 2, every - every // 2) for every in whole]
    else:
        margins = [(every, every) for every in _both(padding, flat, 0)]
    border = [side for margin in reversed(margins) for side in margin]  # left, right, top, bottom

    def seen(x: Tensor, grad: Tensor) -> None:
        if bias is not None and is_trained(bias):
            keep(bias, from_rows(grad.flatten(2).sum(2)))
        if is_trained(weight):
            images, grads = (x.unsqueeze(2), grad.unsqueeze(2)) if flat else (x, grad)
            keep(weight, of_weight(images, grads))

    def of_weight(x: Tensor, grad: Tensor) -> PerSampleGrad:
        spots, size, outputs = grad.shape[2:], kernel[0].numel(), len(kernel) // groups

        def of(part: slice) -> tuple[Tensor, Tensor]:
            windows = unfolded(F.pad(x[part], border), kernel.shape[2:], spots, steps, gaps)
            return windows.reshape(-1, size, spots.numel()), grad[part].reshape(-1, outputs, spots.numel())

        def total(factors: Tensor) -> Tensor:
            scaled = grad * factors.view(-1, 1, 1, 1)
            found: Tensor = conv2d_weight(F.pad(x, border), kernel.shape, scaled, steps, 0, gaps, groups)
            return found.view(weight.shape)

        numbers = x.shape[1:].numel() + grad.shape[1:].numel()
        return Matrices(len(x), groups, size, outputs, spots.numel(), numbers, of).share(weight, total)

    run: Any = F.conv1d if flat else F.conv2d
    return record_gradient(
        run(input, detach(weight), detach(bias), stride, padding, dilation, groups), input, weight, seen
    )


def unfolded(x: Tensor, size: Sequence[int], spots: Sequence[int], steps: Sequence[int], gaps: Sequence[int]) -> Tensor:
    """A view of x (N, C, H, W) as windows: (N, C, *size, *spots), spots `steps` apart, `gaps` inside of a window."""
    rows, channels, *sides = x.stride()
    inside, between = ([side * by for side, by in zip(sides, apart, strict=True)] for apart in (gaps, steps))
    return x.as_strided((*x.shape[:2], *size, *spots), (rows, channels, *inside, *between), x.storage_offset())


def _both(setting: int | Sequence[int], flat: bool, first: int) -> tuple[int, ...]:
    """A setting for height and width; a sequence's height is `first`."""
    given = (setting,) if isinstance(setting, int) else tuple(setting)
    return (first, *given) if flat else given * (2 // len(given))
