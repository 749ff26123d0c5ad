"""The secret from which all of a mark follows, and to which its owner is bound beforehand."""

import hashlib
import math
import secrets
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIZE = 32  # bytes of a secret


@dataclass(frozen=True)
class Key:
    """A random secret; all that a mark draws is a stream of SHAKE-256 (NIST FIPS 202) over it and a purpose.

    An owner publishes `commitment` before anybody could copy the model and shows the secret in a dispute. Whoever could
    choose the key afterwards would find one that fits any model: a p-value means nothing without the commitment. The
    mark's kind, settings and rows belong with it: whoever chooses these afterwards has made many claims.

    No `torch.Generator` is between: it takes 32 bits of its seed and drops the rest, so that a secret that went through
    one could be found by trying.

    Args:
        secret: 32 bytes, not shown in print.
        simulated: whether it came from a seed: for studies, not for use.

    Raises:
        ValueError: anything but bytes, a text among it, or another number of them.
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
        """A key from the operating system, for use; no seed brings it back."""
        return cls(secrets.token_bytes(SIZE))

    @classmethod
    def drawn(cls, generator: torch.Generator) -> "Key":
        """A simulated key: whoever knows the generator's seed knows the secret."""
        drawn = torch.randint(256, (SIZE,), generator=generator, device=generator.device)
        return cls(bytes(drawn.tolist()), simulated=True)

    @property
    def commitment(self) -> str:
        """What is published: sha256 of the secret in hexadecimal; no stream of the key is a part of it."""
        return hashlib.sha256(b"commitment" + self.secret).hexdigest()

    def stream(self, purpose: str, size: int) -> bytes:
        """So many bytes, those of other purposes independent of them; more bytes begin with the same ones."""
        return hashlib.shake_256(self.secret + purpose.encode()).digest(size)

    def _words(self, purpose: str, shape: tuple[int, ...]) -> NDArray[np.uint64]:
        """Uniform 64-bit words, shape (*shape), the same on any machine."""
        return np.frombuffer(self.stream(purpose, 8 * math.prod(shape)), dtype="<u8").reshape(shape)

    def integers(self, purpose: str, high: int, shape: tuple[int, ...]) -> Tensor:
        """Uniform integers in 0..high-1, int64; no value's probability is off by more than 2^-64."""
        return torch.from_numpy(np.asarray(self._words(purpose, shape) % np.uint64(high), dtype=np.int64))

    def bits(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Fair coins, bool."""
        return self.integers(purpose, 2, shape) == 1

    def uniform(self, purpose: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform on [0, 1): multiples of 2^-24 in float32, of 2^-53 in float64."""
        digits = 24 if dtype == torch.float32 else 53
        shifted = np.asarray(self._words(purpose, shape) >> np.uint64(64 - digits), dtype=np.float64)
        return torch.from_numpy(np.asarray(shifted * 2.0**-digits)).to(dtype)

    def normal(self, purpose: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal, by inversion of 52 bits."""
        shifted = np.asarray(self._words(purpose, shape) >> np.uint64(12), dtype=np.float64)
        return torch.special.ndtri(torch.from_numpy(np.asarray((shifted + 0.5) * 2.0**-52))).to(dtype)


def check_key(key: object) -> None:
    """Refuse, with a ValueError, what is no `Key` where a mark takes one."""
    if not isinstance(key, Key):
        raise ValueError(f"a mark follows from a Key, got a {type(key).__name__}: take Key.fresh() or Key(secret)")
