"""The secret key that determines a watermark, and the commitment that its owner publishes beforehand."""

import hashlib
import math
import secrets
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIZE = 32  # length of a secret in bytes


@dataclass(frozen=True)
class Key:
    """A random secret. All that a watermark draws is a stream of SHAKE-256 (NIST FIPS 202) over it and a purpose.

    The owner publishes `commitment` before anybody can copy the model, and reveals the secret in a dispute. Without the
    commitment a p-value means nothing: afterwards, anybody can search for a key that fits a given model. Publish the
    kind of the mark, its settings and its rows as well: choosing them afterwards amounts to many tests.

    The streams do not go through a `torch.Generator`. That uses only 32 bits of its seed, so the secret could be found
    by trying.

    Args:
        secret: 32 bytes; not part of the repr.
        simulated: whether the secret was drawn from a seed, which is for studies only.

    Raises:
        ValueError: a secret that is not bytes (such as a str), or has another length.
    """

    secret: bytes = field(repr=False)
    simulated: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.secret, bytes):
            raise ValueError(f"a secret is {SIZE} bytes, got a {type(self.secret).__name__}: draw it with Key.fresh()")
        if len(self.secret) != SIZE:
            raise ValueError(f"a secret has {SIZE} bytes, got {len(self.secret)}: draw it with Key.fresh()")

    @classmethod
    def fresh(cls) -> "Key":
        """A new key from the operating system's random source; not reproducible by a seed."""
        return cls(secrets.token_bytes(SIZE))

    @classmethod
    def drawn(cls, generator: torch.Generator) -> "Key":
        """A simulated key for studies: the generator's seed determines the secret."""
        drawn = torch.randint(256, (SIZE,), generator=generator, device=generator.device)
        return cls(bytes(drawn.tolist()), simulated=True)

    @property
    def commitment(self) -> str:
        """What the owner publishes: a SHA-256 over the secret, in hexadecimal, that reveals no stream of the key."""
        return hashlib.sha256(b"commitment" + self.secret).hexdigest()

    def stream(self, purpose: str, size: int) -> bytes:
        """Pseudorandom bytes.

        Args:
            purpose: name of the stream; streams of different purposes are independent.
            size: number of bytes.

        Returns:
            The first `size` bytes of the stream.
        """
        return hashlib.shake_256(self.secret + purpose.encode()).digest(size)

    def _words(self, purpose: str, shape: tuple[int, ...]) -> NDArray[np.uint64]:
        """Uniform 64-bit words of the given shape, the same on any machine."""
        return np.frombuffer(self.stream(purpose, 8 * math.prod(shape)), dtype="<u8").reshape(shape)

    def integers(self, purpose: str, high: int, shape: tuple[int, ...]) -> Tensor:
        """Uniform integers in 0..high-1, int64, of the given shape; each probability is exact to 2^-64."""
        return torch.from_numpy(np.asarray(self._words(purpose, shape) % np.uint64(high), dtype=np.int64))

    def bits(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Fair coins, bool, of the given shape."""
        return self.integers(purpose, 2, shape) == 1

    def uniform(self, purpose: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform numbers in [0, 1) of the given shape: multiples of 2^-24 in float32, of 2^-53 in float64."""
        digits = 24 if dtype == torch.float32 else 53
        shifted = np.asarray(self._words(purpose, shape) >> np.uint64(64 - digits), dtype=np.float64)
        return torch.from_numpy(np.asarray(shifted * 2.0**-digits)).to(dtype)

    def normal(self, purpose: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers of the given shape, by inversion of 52 uniform bits."""
        shifted = np.asarray(self._words(purpose, shape) >> np.uint64(12), dtype=np.float64)
        return torch.special.ndtri(torch.from_numpy(np.asarray((shifted + 0.5) * 2.0**-52))).to(dtype)


def check_key(key: object) -> None:
    """Raise a ValueError if the argument is no `Key`."""
    if not isinstance(key, Key):
        raise ValueError(f"a mark follows from a Key, got a {type(key).__name__}: take Key.fresh() or Key(secret)")
