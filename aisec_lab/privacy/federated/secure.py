"""Sums that a server learns without learning what was summed."""

from dataclasses import dataclass

import torch
from torch import Tensor

BITS = 32  # of the integers modulo which everything is added
MODULUS = 2**BITS


@dataclass(frozen=True)
class SecureAggregation:
    """Masks in pairs that cancel in the sum (Bonawitz et al., 2017, doi:10.1145/3133956.3133982, section 4.0.1).

    Vectors become fixed-point integers modulo 2^32. Each pair of clients shares a mask, uniform over these integers:
    one adds it, the other subtracts it. One client's masked vector is uniform, whatever it holds; the sum is exact.

    It shows what a server sees and what it does not. It is no protocol: masks come from a generator instead of a key
    agreement, and where a client drops out, nobody can remove its masks (the paper's secret shares are left out).

    Args:
        fraction_bits: bits after the point; a sum of n values is off by n / 2^(fraction_bits + 1) at most.

    Args of the call:
        vectors: of the clients (n, P), floating point.
        generator: source of the masks.

    Returns:
        Their sum (P,), of the same dtype.

    Raises:
        ValueError: a single vector, values whose sum could pass the modulus, or that are not finite.
    """

    fraction_bits: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.fraction_bits < BITS - 1:
            raise ValueError(f"fraction_bits must lie in 0..{BITS - 2}, got {self.fraction_bits}")

    def __call__(self, vectors: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.decode(self.mask(vectors, generator=generator).sum(0)).to(vectors)

    def mask(self, vectors: Tensor, *, generator: torch.Generator) -> Tensor:
        """What the server is sent: integers (n, P), int64 in 0..2^32 - 1."""
        return (self.encode(vectors) + pairwise_masks(*vectors.shape, generator=generator)) % MODULUS

    def encode(self, vectors: Tensor) -> Tensor:
        """Fixed-point integers (n, P), int64 in 0..2^32 - 1; a negative value wraps around."""
        if len(vectors) < 2:
            raise ValueError(f"the sum of {len(vectors)} vectors hides nothing: it takes two clients at least")
        fixed, largest = (vectors.double() * 2**self.fraction_bits).round(), MODULUS // 2 / len(vectors)
        if not (fixed.abs() < largest).all():  # a value that is not finite fails here, too
            raise ValueError(
                f"values must be below {largest / 2**self.fraction_bits:.4g} in size for the sum of {len(vectors)} to "
                f"fit, got {vectors.abs().max().item():.4g}: lower fraction_bits or the learning rate"
            )
        return fixed.long() % MODULUS

    def decode(self, total: Tensor) -> Tensor:
        """The real numbers, float64, of a sum of such integers."""
        wrapped = (total + MODULUS // 2) % MODULUS - MODULUS // 2
        return wrapped.double() / 2**self.fraction_bits


def pairwise_masks(clients: int, size: int, *, generator: torch.Generator) -> Tensor:
    """Masks (clients, size), int64, each uniform modulo 2^32 where there is another client; their sum is 0."""
    masks = torch.zeros(clients, size, dtype=torch.int64)
    for first in range(clients):
        for second in range(first + 1, clients):
            shared = torch.randint(MODULUS, (size,), generator=generator)
            masks[first] += shared
            masks[second] -= shared
    return masks % MODULUS
