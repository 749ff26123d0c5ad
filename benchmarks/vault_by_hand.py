"""The vault's format read a second time, from its documents alone: struct, hashlib, and one chunk after the other."""

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

TAG = 16
KEPT = """
6169736563007631000000001088d63b8dfadb56003c0101080156588377311979bb82076a8eadab67e67fc5d7cfc8d4
3f0903f39e415e9505f73d4de3833fbbe29c715e6c24c7bbfe19ec51f7776a950a653e8a29095bfa9e917bab2b55254b
a7ae057a93aec2e679251ad449f92e6ccfce979b9f2152a8de7d2d26a2b17ca03061591890e1cac2d15e6bd77856cb41
4b215392ddd6df6784816266dd8a7fbb7cb74ae1f647adc69079032d9e
"""  # the hexadecimal digits of a file sealed by the passphrase "correct horse"


@dataclass(frozen=True)
class Layout:
    """The parts of a sealed file."""

    fixed: bytes
    chunk: int
    prefix: bytes
    slot: bytes
    commitment: bytes
    body: bytes

    @property
    def chunks(self) -> list[bytes]:
        size = self.chunk + TAG
        return [self.body[start : start + size] for start in range(0, len(self.body), size)]


def parse(data: bytes) -> Layout:
    """By the table in `vault_format`."""
    assert data[:8] == b"aisec\x00v1"
    chunk, prefix, length = int.from_bytes(data[9:13], "big"), data[13:20], int.from_bytes(data[20:22], "big")
    end = 22 + length
    return Layout(data[:22], chunk, prefix, data[22:end], data[end : end + 32], data[end + 32 :])


def derived(data_key: bytes, header: bytes) -> tuple[bytes, bytes]:
    """HKDF-SHA256 by RFC 5869, two rounds: the key of the stream and the commitment."""
    extracted = hmac.digest(bytes(32), data_key, "sha256")
    first = hmac.digest(extracted, header + b"\x01", "sha256")
    return first, hmac.digest(extracted, first + header + b"\x02", "sha256")


def encrypted_chunk(key: bytes, prefix: bytes, header: bytes, text: bytes) -> bytes:
    """A message of one chunk: number 0, and the last."""
    return AESGCM(key).encrypt(prefix + bytes(4) + b"\x01", text, header)


def opened(data: bytes, data_key: Callable[[bytes], bytes]) -> bytes:
    """The plaintext; `data_key` is given the slot."""
    layout = parse(data)
    header = layout.fixed + layout.slot
    key, commitment = derived(data_key(layout.slot), header)
    assert commitment == layout.commitment
    text = b""
    for number, chunk in enumerate(layout.chunks):
        last = number == len(layout.chunks) - 1
        text += AESGCM(key).decrypt(layout.prefix + struct.pack(">IB", number, last), chunk, header)
    return text


def scrypt_data_key(slot: bytes, passphrase: str) -> bytes:
    """hashlib's scrypt, and AES key unwrap by RFC 3394, section 2.2.2."""
    kind, log2_n, r, p = slot[:4]
    assert kind == 1
    key = hashlib.scrypt(passphrase.encode(), salt=slot[4:20], n=2**log2_n, r=r, p=p, dklen=32)
    check, *blocks = (slot[start : start + 8] for start in range(20, 60, 8))
    decryptor = Cipher(AES256(key), ECB()).decryptor()
    for step in range(6 * len(blocks), 0, -1):
        place = (step - 1) % len(blocks)
        text = decryptor.update((int.from_bytes(check, "big") ^ step).to_bytes(8, "big") + blocks[place])
        check, blocks[place] = text[:8], text[8:]
    assert check == bytes([0xA6] * 8)
    return b"".join(blocks)


def rsa_data_key(slot: bytes, key: RSAPrivateKey) -> bytes:
    """RSA-OAEP by RFC 8017, section 7.1.2: with integers."""
    numbers = key.private_numbers()
    modulus = numbers.public_numbers.n
    length = (modulus.bit_length() + 7) // 8
    assert slot[0] == 2
    text = pow(int.from_bytes(slot[33:], "big"), numbers.d, modulus).to_bytes(length, "big")
    masked_seed, masked_block = text[1:33], text[33:]
    seed = _xor(masked_seed, _mask(masked_block, 32))
    block = _xor(masked_block, _mask(seed, len(masked_block)))
    assert text[0] == 0
    assert block[:32] == hashlib.sha256(b"").digest()
    padding, _, data_key = block[32:].partition(b"\x01")
    assert not any(padding)
    return data_key


def _mask(seed: bytes, length: int) -> bytes:
    """MGF1 with SHA-256 (RFC 8017, B.2.1)."""
    rounds = range(-(-length // 32))
    return b"".join(hashlib.sha256(seed + number.to_bytes(4, "big")).digest() for number in rounds)[:length]


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
