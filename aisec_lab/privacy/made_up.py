"""Rows that are nobody's, of the kind of given ones, for a look at a model; they tell of no row."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]  # inputs, or inputs and targets: (N, *shape) each


def nobodys(x: Tensor, count: int) -> Tensor:
    """Random rows (count, *input) of the type, device and range of x."""
    return scaled(torch.rand(count, *x.shape[1:], generator=torch.Generator().manual_seed(0)), x)


def draws(like: Batch, count: int) -> Iterator[tuple[Batch, Batch]]:
    """Pairs of batches of `count` rows: noise, rows of one number each, and the ends of the range.

    Args:
        like: rows of the kind that is wanted: inputs, and targets, if there are any.
        count: how many.
    """
    generator = torch.Generator().manual_seed(0)

    def made(units: Callable[[Tensor], Tensor]) -> Batch:
        x, *targets = like
        return scaled(units(x), x), *(spread(units(one), one) for one in targets)

    def noise(one: Tensor) -> Tensor:
        return torch.rand(count, *one.shape[1:], generator=generator)

    def flat(one: Tensor) -> Tensor:
        level = torch.rand(count, *[1] * (one.ndim - 1), generator=generator)
        return level.expand(count, *one.shape[1:]).contiguous()

    low, high = (made(lambda one, end=end: torch.full((count, *one.shape[1:]), end)) for end in (0.0, 1.0))  # type: ignore[misc]
    yield made(noise), made(noise)
    yield made(flat), made(flat)
    yield low, high
    yield high, made(noise)
    yield made(flat), low


def scaled(unit: Tensor, like: Tensor) -> Tensor:
    """Numbers in [0, 1] as inputs: themselves, or whole numbers between the ends of `like`."""
    return unit.to(like) if like.is_floating_point() else spread(unit, like)


def spread(unit: Tensor, like: Tensor) -> Tensor:
    """Numbers in [0, 1] as numbers between the ends of `like`; whole ones where all of `like` are."""
    low, high = like.aminmax()
    between = low + unit.to(like.device) * (high - low)
    return (between.round() if bool((like == like.round()).all()) else between).to(like)


def halves(count: int) -> Iterator[Tensor]:
    """Masks (count,) such that for any two places one mask holds the first and not the second: the bits of numbers."""
    numbers = torch.arange(count)
    for bit in range(max(1, (count - 1).bit_length())):
        mask = (numbers >> bit) % 2 == 1
        yield mask
        yield ~mask


def exchanged(rows: Batch, others: Batch, changed: Tensor) -> Batch:
    """The rows, but those that are `changed` (N,) from the others."""
    return tuple(
        torch.where(changed.to(one.device).view(-1, *[1] * (one.ndim - 1)), other, one)
        for one, other in zip(rows, others, strict=True)
    )


def taken(rows: Batch, kept: slice | Tensor) -> Batch:
    """Some of the rows."""
    return tuple(one[kept] for one in rows)
