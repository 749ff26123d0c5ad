"""Secure aggregation: a server learns the sum of vectors, but none of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

BITS = 32  # of the integers
MODULUS = 2**BITS


@dataclass(frozen=True)
class SecureAggregation:
    """Pairwise masks that cancel in the sum (Bonawitz et al., 2017, doi:10.1145/3133956.3133982, section 4.0.1).

    Vectors become fixed-point integers modulo 2^32. Each pair of clients shares a uniform mask: one adds it, the other
    subtracts it. So each masked vector alone is uniform, and the sum is exact.

    This is a simulation of what the server sees, not a protocol: masks come from a generator instead of a key
    agreement, and there are no secret shares to remove the masks of a client that drops out.

    Args:
        fraction_bits: bits after the binary point, from 0 to 30; a sum of n values has an error of at most
            n / 2^(fraction_bits + 1).

    Raises:
        ValueError: fraction_bits out of its range.
    """

    fraction_bits: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.fraction_bits < BITS - 1:
            raise ValueError(f"fraction_bits must lie in 0..{BITS - 2}, got {self.fraction_bits}")

    def __call__(self, vectors: Tensor, *, generator: torch.Generator) -> Tensor:
        """Sum the vectors of clients.

        Args:
            vectors: one per client (n, P), floating point, at least two.
            generator: source of the masks.

        Returns:
            Their sum (P,), of the same dtype.

        Raises:
            ValueError: a single vector, or values that are not finite or so large that the sum could overflow.
        """
        return self.decode(self.mask(vectors, generator=generator).sum(0)).to(vectors)

    def mask(self, vectors: Tensor, *, generator: torch.Generator) -> Tensor:
        """What the clients send to the server: masked integers (n, P), int64 in 0..2^32 - 1."""
        return (self.encode(vectors) + pairwise_masks(*vectors.shape, generator=generator)) % MODULUS

    def encode(self, vectors: Tensor) -> Tensor:
        """Vectors as fixed-point integers (n, P), int64 in 0..2^32 - 1; negative values wrap around."""
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
        """A sum of such integers as real numbers, float64."""
        wrapped = (total + MODULUS // 2) % MODULUS - MODULUS // 2
        return wrapped.double() / 2**self.fraction_bits


def pairwise_masks(clients: int, size: int, *, generator: torch.Generator) -> Tensor:
    """Masks (clients, size), int64 in 0..2^32 - 1, that sum to 0 modulo 2^32; each alone is uniform."""
    masks = torch.zeros(clients, size, dtype=torch.int64)
    for first in range(clients):
        for second in range(first + 1, clients):
            shared = torch.randint(MODULUS, (size,), generator=generator)
            masks[first] += shared
            masks[second] -= shared
    return masks % MODULUS
