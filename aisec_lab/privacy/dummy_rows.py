"""Dummy rows, of the shape, dtype and range of given ones: a model can be tested on them without touching any row."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]  # inputs, or inputs and targets: (N, *shape) each


def dummy_inputs(x: Tensor, count: int) -> Tensor:
    """Random rows (count, *input) of the dtype, device and range of x (N, *input)."""
    return scale_inputs(torch.rand(count, *x.shape[1:], generator=torch.Generator().manual_seed(0)), x)


def dummy_batches(like: Batch, count: int) -> Iterator[tuple[Batch, Batch]]:
    """Pairs of dummy batches: noise, constant rows, and rows at the ends of the range.

    Args:
        like: real inputs, and targets if there are any; their shape, dtype and range are used.
        count: rows of each batch.

    Yields:
        Five pairs of batches (count, *shape).
    """
    generator = torch.Generator().manual_seed(0)

    def make(units: Callable[[Tensor], Tensor]) -> Batch:
        x, *targets = like
        return scale_inputs(units(x), x), *(scale_to_range(units(target), target) for target in targets)

    def noise(tensor: Tensor) -> Tensor:
        return torch.rand(count, *tensor.shape[1:], generator=generator)

    def constant(tensor: Tensor) -> Tensor:
        level = torch.rand(count, *[1] * (tensor.ndim - 1), generator=generator)
        return level.expand(count, *tensor.shape[1:]).contiguous()

    low, high = (make(lambda one, end=end: torch.full((count, *one.shape[1:]), end)) for end in (0.0, 1.0))  # type: ignore[misc]
    yield make(noise), make(noise)
    yield make(constant), make(constant)
    yield low, high
    yield high, make(noise)
    yield make(constant), low


def scale_inputs(unit: Tensor, like: Tensor) -> Tensor:
    """Numbers in [0, 1] as inputs: unchanged if `like` is floating point, else integers in its range."""
    return unit.to(like) if like.is_floating_point() else scale_to_range(unit, like)


def scale_to_range(unit: Tensor, like: Tensor) -> Tensor:
    """Numbers in [0, 1], scaled to the range of `like`; rounded where all numbers of `like` are whole."""
    low, high = like.aminmax()
    between = low + unit.to(like.device) * (high - low)
    return (between.round() if bool((like == like.round()).all()) else between).to(like)


def separating_masks(count: int) -> Iterator[Tensor]:
    """Boolean masks (count,) such that for any ordered pair of indices one mask holds the first and not the second.

    They are the bits of the indices, and their complements.
    """
    indices = torch.arange(count)
    for bit in range(max(1, (count - 1).bit_length())):
        mask = (indices >> bit) % 2 == 1
        yield mask
        yield ~mask


def replace_rows(rows: Batch, others: Batch, mask: Tensor) -> Batch:
    """The batch with the rows in `mask` (N,) replaced by those of another batch."""
    return tuple(
        torch.where(mask.to(one.device).view(-1, *[1] * (one.ndim - 1)), other, one)
        for one, other in zip(rows, others, strict=True)
    )


def select_rows(rows: Batch, index: slice | Tensor) -> Batch:
    """The rows of a batch at an index."""
    return tuple(one[index] for one in rows)
