"""Randomness of private training: Poisson sampling of batches, and Gaussian noise."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 52  # of a uniform draw: with half a unit added it is exact in float64, and neither 0 nor 1


def sampling_rate(rows: int, batch_size: int) -> float:
    """The probability q = batch_size / rows with which each row is in a batch.

    Args:
        rows: number of training rows.
        batch_size: expected rows of a batch.

    Raises:
        ValueError: fewer rows than a batch, so that q would exceed 1.
    """
    if rows < batch_size:
        raise ValueError(
            f"Poisson sampling needs at least batch_size = {batch_size} rows, got {rows}: lower batch_size"
        )
    return batch_size / rows


def poisson_batches(rows: int, batch_size: int, generator: torch.Generator | None) -> Sequence[Tensor]:
    """Sample the batches of an epoch: each row is in each batch with probability q, independently (Poisson sampling).

    Args:
        rows: number of training rows.
        batch_size: expected rows of a batch; q is `sampling_rate`.
        generator: source of randomness; None for the operating system.

    Returns:
        As many batches as an epoch of `Fit` has steps, each of ascending row indices (n,), int64; some may be empty.

    Raises:
        ValueError: fewer rows than a batch.
    """
    rate, batches = sampling_rate(rows, batch_size), -(-rows // batch_size)
    return [(uniforms(rows, generator) < rate).nonzero().squeeze(1) for _ in range(batches)]


def uniforms(count: int, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1], shape (count,), float64.

    Args:
        count: how many.
        generator: source of randomness; None for the operating system.
    """
    if generator is not None:
        return torch.rand(count, dtype=torch.float64, generator=generator)
    words = torch.frombuffer(bytearray(os.urandom(8 * count)), dtype=torch.int64)
    return ((words & (2**BITS - 1)).double() + 0.5) * 2.0**-BITS


def normals(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Standard normal noise, float32.

    The noise is rounded to float32, by which an adversary can in principle tell it from noise around another value
    (Mironov, 2012).

    Args:
        shape: of the noise.
        generator: source of randomness. None for the operating system, whose uniform numbers are turned into normal
            ones by the inverse distribution function, up to 8.2 standard deviations.
    """
    if generator is not None:
        return torch.randn(shape, generator=generator)
    return torch.special.ndtri(uniforms(torch.Size(shape).numel(), None)).reshape(shape).float()
