"""Where the chance in private training comes from: who is in a batch, and the noise."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 52  # of a uniform draw: with half a unit added it is exact in float64, and neither 0 nor 1


def sampling_rate(rows: int, batch_size: int) -> float:
    """The chance q = batch_size / rows of each row to be in a batch.

    Raises:
        ValueError: fewer rows than a batch has, so that q would pass 1.
    """
    if rows < batch_size:
        raise ValueError(
            f"Poisson sampling needs at least batch_size = {batch_size} rows, got {rows}: lower batch_size"
        )
    return batch_size / rows


def poisson(rows: int, batch_size: int, generator: torch.Generator | None) -> Sequence[Tensor]:
    """The batches of an epoch, each row in each of them by a coin of its own (Poisson sampling).

    Args:
        rows: how many there are.
        batch_size: how many are expected in a batch; each row is in it with chance `sampling_rate`.
        generator: source of the coins; none for the operating system.

    Returns:
        As many batches of row numbers, int64 and in order, as an epoch of `Fit` has steps; some may be empty.

    Raises:
        ValueError: fewer rows than a batch has.
    """
    rate, batches = sampling_rate(rows, batch_size), -(-rows // batch_size)
    return [(uniforms(rows, generator) < rate).nonzero().squeeze(1) for _ in range(batches)]


def uniforms(count: int, generator: torch.Generator | None) -> Tensor:
    """So many numbers from [0, 1], float64, from `generator`, or, where there is none, from the operating system."""
    if generator is not None:
        return torch.rand(count, dtype=torch.float64, generator=generator)
    words = torch.frombuffer(bytearray(os.urandom(8 * count)), dtype=torch.int64)
    return ((words & (2**BITS - 1)).double() + 0.5) * 2.0**-BITS


def normals(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of `shape`, float32, from `generator`, or, where there is none, from the operating system.

    The latter by the inverse of the normal distribution, which ends at 8.2 standard deviations. Both are rounded to
    float32, from which noise can in principle be told from noise around another value (Mironov, 2012).
    """
    if generator is not None:
        return torch.randn(shape, generator=generator)
    return torch.special.ndtri(uniforms(torch.Size(shape).numel(), None)).reshape(shape).float()
