"""Random numbers that depend on a row's content, not on its position in the batch."""

import copy

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio, as a signed integer
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64


def _shifted(z: Tensor, places: int) -> Tensor:
    """Logical shift to the right: zeros are shifted in, whatever the sign."""
    return (z >> places) & ((1 << (64 - places)) - 1)


def _mixed(z: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele et al., 2014, figure 16): a bijection of 64 bits; int64 wraps around."""
    z = (z ^ _shifted(z, 30)) * FIRST
    z = (z ^ _shifted(z, 27)) * SECOND
    return z ^ _shifted(z, 31)


def _stream(keys: Tensor, length: int) -> Tensor:
    """The first `length` outputs of splitmix64 from each state of `keys` (N,): shape (N, length)."""
    places = torch.arange(1, length + 1, device=keys.device) * GOLDEN
    return _mixed(keys[:, None] + places)


class RowNoise:
    """Random numbers keyed by row, from a counter-based generator (in the manner of Salmon et al., 2011).

    The numbers of a row depend only on the generator's state at construction, on the bits of the row, and on the
    `counter` of the call. So neither the size nor the order of a batch changes a row's numbers, if each batch starts
    from a generator in the same state. Equal rows get equal numbers.

    Args:
        x: rows (N, *), floating point, of at least one number each.
        generator: gives one 64-bit key, so that it advances by the same amount for any batch.
    """

    def __init__(self, x: Tensor, generator: torch.Generator) -> None:
        low, high = -(2**63), 2**63 - 1
        base = int(torch.randint(low, high, (), generator=generator, device=generator.device))
        bits = x.detach().flatten(1).contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int64)
        seat = _stream(
            torch.full((1,), base, device=x.device), bits.shape[1]
        )  # so that the order of a row's numbers matters
        self.keys = _mixed(_mixed(bits.long() ^ seat).sum(1) + base)
        self.dtype = x.dtype

    def select(self, index: Tensor) -> "RowNoise":
        """The random numbers of some rows, for a working batch that shrinks.

        Args:
            index: indices (n,) or a mask (N,).
        """
        selected = copy.copy(self)
        selected.keys = self.keys[index]
        return selected

    def bits(self, shape: tuple[int, ...], counter: int | Tensor) -> Tensor:
        """Uniform random 64-bit integers.

        Args:
            shape: of one row's numbers.
            counter: for all rows, or of each row (N,); different counters give independent numbers.

        Returns:
            Shape (N, *shape), int64.
        """
        counted = _mixed(self.keys + torch.as_tensor(counter, device=self.keys.device) * GOLDEN)
        return _stream(counted, torch.Size(shape).numel()).view(-1, *shape)

    def uniform(self, shape: tuple[int, ...], counter: int | Tensor) -> Tensor:
        """Uniform numbers in [0, 1), shape (N, *shape), of the rows' dtype; arguments of `bits`."""
        digits = 24 if self.dtype == torch.float32 else 53
        return _shifted(self.bits(shape, counter), 64 - digits).to(self.dtype) * 2.0**-digits

    def normal(self, shape: tuple[int, ...], counter: int) -> Tensor:
        """Standard normal numbers by inversion, shape (N, *shape), of the rows' dtype; arguments of `bits`."""
        u = (_shifted(self.bits(shape, counter), 12).double() + 0.5) * 2.0**-52  # inside (0, 1)
        return torch.special.ndtri(u).to(self.dtype)

    def integers(self, low: int, high: int, shape: tuple[int, ...], counter: int | Tensor) -> Tensor:
        """Uniform integers in low..high - 1, shape (N, *shape), int64; other arguments of `bits`."""
        return low + _shifted(self.bits(shape, counter), 1) % (high - low)

    def generators(self, counter: int) -> list[torch.Generator]:
        """One generator per row (N): faster where a row needs hundreds of thousands of numbers."""
        return [torch.Generator(self.keys.device).manual_seed(seed) for seed in self.bits((), counter).tolist()]
