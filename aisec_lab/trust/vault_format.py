"""A sealed file, byte for byte.

| bytes | what |
|---|---|
| 8 | `aisec`, a zero byte, `v1` |
| 1 | what is inside: 0 a file, 1 a folder as a tar stream |
| 4 | chunk: bytes of plaintext in a chunk |
| 7 | prefix of every nonce |
| 2 | length of the slot |
| … | the slot: the data key, wrapped (`vault_passphrase`, `vault_rsa`) |
| 32 | commitment to the data key and to all of the above |
| … | the chunks, each with a tag of 16 bytes (`vault_stream`) |

Numbers are big-endian. The header is everything above the commitment. HKDF-SHA256 (RFC 5869) of the data key, without
salt and with the header as info, gives 64 bytes: the key of the stream, then the commitment. AES-GCM alone commits to
no key: a file could be made that opens to one text for you and to another for me (Dodis, Grubbs, Ristenpart, Woodage,
2018, eprint 2019/016).
"""

import hmac
import os
import struct
from typing import IO, Protocol, runtime_checkable

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aisec_lab.trust.vault_stream import KEY, PREFIX, CipherStream, Source

MAGIC = b"aisec\x00v1"
FILE, FOLDER = 0, 1
FIXED = struct.Struct(f">8sBI{PREFIX}sH")
COMMITMENT = 32
CHUNK = 2**20  # bytes; from 256 KiB to 1 MiB it is equally fast, below that calls cost, above it caches
LARGEST_CHUNK = 2**26


@runtime_checkable
class Wraps(Protocol):
    """A key that seals."""

    def wrap(self, data_key: bytes) -> bytes:
        """Its slot."""


@runtime_checkable
class Unwraps(Protocol):
    """A key that opens."""

    def unwrap(self, slot: bytes) -> bytes:
        """The data key."""


def _keyed(data_key: bytes, header: bytes, prefix: bytes, chunk: int) -> tuple[CipherStream, bytes]:
    """The stream under a data key and a header, and the commitment to both."""
    derived = HKDF(SHA256(), KEY + COMMITMENT, salt=None, info=header).derive(data_key)
    return CipherStream(derived[:KEY], prefix, header, chunk), derived[KEY:]


def write_sealed(source: Source, sink: IO[bytes], key: Wraps, *, inside: int, chunk: int = CHUNK) -> None:
    """Seal what `source` holds under a fresh data key.

    Args:
        source: read to its end.
        sink: takes the sealed bytes.
        key: wraps the data key.
        inside: `FILE` or `FOLDER`.
        chunk: bytes of plaintext in a chunk, from 1 to 2**26.

    Raises:
        ValueError: what does not seal, or a chunk of another size.
    """
    if not isinstance(key, Wraps):
        raise ValueError(f"a Passphrase or a PublicKey seals, got a {type(key).__name__}")
    if not 1 <= chunk <= LARGEST_CHUNK:
        raise ValueError(f"a chunk holds from 1 to {LARGEST_CHUNK} bytes, got {chunk}")
    data_key, prefix = os.urandom(KEY), os.urandom(PREFIX)
    slot = key.wrap(data_key)
    header = FIXED.pack(MAGIC, inside, chunk, prefix, len(slot)) + slot
    stream, commitment = _keyed(data_key, header, prefix, chunk)
    sink.write(header + commitment)
    stream.encrypt(source, sink)


def read_sealed(source: Source, sink: IO[bytes], key: Unwraps) -> int:
    """Open what `write_sealed` wrote; nothing in `sink` may be believed or seen before this returns.

    Returns:
        What is inside, `FILE` or `FOLDER`.

    Raises:
        ValueError: what does not open, not a sealed file, the wrong key, or any byte changed, added, missing or out of
            its place.
    """
    if not isinstance(key, Unwraps):
        raise ValueError(f"a Passphrase or a PrivateKey opens, got a {type(key).__name__}")
    fixed = source.read(FIXED.size) or b""
    if len(fixed) < FIXED.size or not fixed.startswith(MAGIC):
        raise ValueError("not a sealed file, or its header is damaged")
    _, inside, chunk, prefix, length = FIXED.unpack(fixed)
    if inside not in (FILE, FOLDER) or not 1 <= chunk <= LARGEST_CHUNK:
        raise ValueError("the header is damaged")
    slot, committed = source.read(length) or b"", source.read(COMMITMENT) or b""
    stream, commitment = _keyed(key.unwrap(slot), fixed + slot, prefix, chunk)
    if not hmac.compare_digest(commitment, committed):
        raise ValueError("the header was changed")
    stream.decrypt(source, sink)
    return inside
