"""STREAM: a message of any length, encrypted and authenticated chunk by chunk."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY, PREFIX, TAG = 32, 7, 16  # bytes
LIMIT = 2**32  # chunks; at 2**26 bytes each GCM stays far below the 2**64 blocks that one key may encrypt

Source = io.RawIOBase | io.BufferedIOBase


def blocks(source: Source, size: int) -> Iterator[tuple[memoryview, bool]]:
    """Cut a file into blocks of `size` bytes, True beside the last one.

    Yields:
        Blocks, of which only the last may be shorter; an empty file is one empty block. Two buffers take turns: a
        block is good until the next is asked for.
    """
    block, ahead = bytearray(size), bytearray(size)
    filled = _fill(source, block)
    while True:
        following = _fill(source, ahead) if filled == size else 0
        yield memoryview(block)[:filled], not following
        if not following:
            return
        block, ahead, filled = ahead, block, following


def _fill(source: Source, buffer: bytearray) -> int:
    """Read until the buffer is full or the file ends; how many bytes that were."""
    view, filled = memoryview(buffer), 0
    while filled < len(buffer) and (read := source.readinto(view[filled:])):
        filled += read
    return filled


@dataclass(frozen=True)
class CipherStream:
    """AES-256-GCM in the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, 2015, eprint 2015/189).

    Chunk i is sealed under the nonce `prefix || i (4 bytes, big-endian) || last (1 byte, 1 on the last chunk else 0)`
    with the header as associated data. So a chunk verifies only in its own place, under its own header, and the end
    only in its place: no chunk can be cut off, appended, swapped or taken from another file.

    Args:
        key: 32 bytes, of this message alone.
        prefix: 7 bytes.
        header: what else every chunk is bound to.
        chunk: bytes of plaintext in a chunk; the last chunk has the rest, and exists even if the rest is empty.
    """

    key: bytes = field(repr=False)
    prefix: bytes
    header: bytes
    chunk: int

    def _nonce(self, number: int, last: bool) -> bytes:
        if number >= LIMIT:
            raise ValueError(f"more than {LIMIT} chunks of {self.chunk} bytes: seal it in parts")
        return self.prefix + number.to_bytes(4, "big") + bytes([last])

    def encrypt(self, source: Source, sink: IO[bytes]) -> None:
        """Write the chunks of a file, each followed by its tag of 16 bytes; memory does not grow with the file."""
        cipher, sealed = AESGCM(self.key), memoryview(bytearray(self.chunk + TAG))
        for number, (block, last) in enumerate(blocks(source, self.chunk)):
            length = len(block) + TAG
            cipher.encrypt_into(self._nonce(number, last), block, self.header, sealed[:length])
            sink.write(sealed[:length])

    def decrypt(self, source: Source, sink: IO[bytes]) -> None:
        """Write the plaintext of what `encrypt` wrote, each chunk once its tag is checked.

        The bytes in `sink` are unverified until this returns: the caller keeps them where no other process finds them.

        Raises:
            ValueError: a chunk that does not verify.
        """
        cipher, plain = AESGCM(self.key), memoryview(bytearray(self.chunk))
        for number, (block, last) in enumerate(blocks(source, self.chunk + TAG)):
            length = len(block) - TAG
            try:
                cipher.decrypt_into(self._nonce(number, last), block, self.header, plain[:length])
            except InvalidTag:  # also where there are not even the bytes of a tag
                raise ValueError(
                    f"chunk {number} does not verify: damaged, cut off, out of its place, or from another file"
                ) from None
            sink.write(plain[:length])
