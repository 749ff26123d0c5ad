"""A passphrase that wraps the data key of a sealed file."""

import os
import struct
import unicodedata
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

BY_PASSPHRASE = 1  # first byte of a slot, the place in a header that holds the wrapped data key
SHORTEST = 8  # characters (NIST SP 800-63B, 5.1.1.1)
MOST_MEMORY = 2**30  # bytes that a header may make scrypt ask for: a stranger wrote it
SCRYPT = struct.Struct(">BBBB16s40s")  # kind, log2 n, r, p, salt, data key wrapped by RFC 3394


@dataclass(frozen=True)
class Passphrase:
    """Wraps a data key by AES key wrap (RFC 3394) under scrypt (RFC 7914) of a passphrase; seals and opens.

    Args:
        text: at least 8 characters; their Unicode form does not matter (NFC is taken).
        n, r, p: cost for sealing, OWASP's first choice: 128 MiB and some tenths of a second. Each slot holds its own,
            so that what was sealed at another cost opens.

    Raises:
        ValueError: no string; a short passphrase; an n that is no power of two; a cost above 1 GiB.
    """

    text: str = field(repr=False)
    n: int = 2**17
    r: int = 8
    p: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ValueError(f"a passphrase is a string, got a {type(self.text).__name__}: decode it first")
        if len(self.text) < SHORTEST:
            raise ValueError(f"a passphrase needs at least {SHORTEST} characters, got {len(self.text)}")
        _check_cost(self.n, self.r, self.p)

    def _derive(self, salt: bytes, n: int, r: int, p: int) -> bytes:
        text = unicodedata.normalize("NFC", self.text).encode()
        return Scrypt(salt, 32, n, r, p).derive(text)

    def wrap(self, data_key: bytes) -> bytes:
        """The slot for a data key of 32 bytes, under a fresh salt."""
        salt = os.urandom(16)
        wrapped = aes_key_wrap(self._derive(salt, self.n, self.r, self.p), data_key)
        return SCRYPT.pack(BY_PASSPHRASE, self.n.bit_length() - 1, self.r, self.p, salt, wrapped)

    def unwrap(self, slot: bytes) -> bytes:
        """The data key in a slot; ValueError if it is not this passphrase's."""
        if slot[:1] != bytes([BY_PASSPHRASE]):
            raise ValueError("sealed for an RSA key, not by a passphrase: open it with the private key")
        if len(slot) != SCRYPT.size:
            raise ValueError("the header is damaged")
        _, log2_n, r, p, salt, wrapped = SCRYPT.unpack(slot)
        _check_cost(2**log2_n, r, p)
        try:
            return aes_key_unwrap(self._derive(salt, 2**log2_n, r, p), wrapped)
        except InvalidUnwrap:
            raise ValueError("wrong passphrase, or the header was changed") from None


def _check_cost(n: int, r: int, p: int) -> None:
    """Refuse, with a ValueError, what scrypt cannot do or this machine should not."""
    if n < 2 or n & (n - 1) or not 1 <= r <= 255 or not 1 <= p <= 255 or 128 * n * r * p > MOST_MEMORY:
        raise ValueError(
            f"scrypt takes a power of two for n, r and p in 1..255, and 128 n r p up to {MOST_MEMORY} bytes, "
            f"got n={n}, r={r}, p={p}"
        )
