"""RSA keys that wrap the data key of a sealed file, and their files."""

import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from aisec_lab.core.files import written_beside
from aisec_lab.trust.vault_format import FILE, Unwraps, Wraps, read_sealed, write_sealed

BY_RSA = 2  # first byte of a slot; the other is `vault_passphrase.BY_PASSPHRASE`
BITS = 3072
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class PublicKey:
    """Wraps a data key by RSA-OAEP with SHA-256 (RFC 8017, section 7.1); seals only.

    Anybody who has it can seal, so a file that opens was sealed for you, by an unknown sender: the ledger records who
    it was.

    Args:
        key: of at least 3072 bits.

    Raises:
        ValueError: fewer than 3072 bits, or no RSA key.
    """

    key: rsa.RSAPublicKey

    def __post_init__(self) -> None:
        _check(self.key, rsa.RSAPublicKey)

    @classmethod
    def read(cls, path: StrPath) -> Self:
        """The key in a PEM file, as `generate_keys` or `openssl rsa -pubout` writes it; ValueError if there is none."""
        try:
            key = load_pem_public_key(Path(path).read_bytes())
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError(f"{path} holds no public key in PEM form: `aisec vault keygen NAME` makes one") from None
        return cls(key)  # type: ignore[arg-type]  # checked there

    def wrap(self, data_key: bytes) -> bytes:
        """The slot for a data key: kind (1 byte), fingerprint of this key (32 bytes), the data key encrypted."""
        return bytes([BY_RSA]) + fingerprint(self.key) + self.key.encrypt(data_key, OAEP)


@dataclass(frozen=True)
class PrivateKey:
    """Unwraps the data key of a file that was sealed for its public half.

    Args:
        key: of at least 3072 bits.

    Raises:
        ValueError: fewer than 3072 bits, or no RSA key.
    """

    key: rsa.RSAPrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        _check(self.key, rsa.RSAPrivateKey)

    @classmethod
    def read(cls, path: StrPath, passphrase: Unwraps) -> Self:
        """The key that `generate_keys` sealed; ValueError if the passphrase is not the one, or the file no key."""
        secret = io.BytesIO()
        with open(path, "rb") as file:
            try:
                read_sealed(file, secret, passphrase)
                key = load_pem_private_key(secret.getvalue(), None)
            except (ValueError, TypeError, UnsupportedAlgorithm) as error:
                raise ValueError(f"{path}, which should be a private key of the vault: {error}") from None
        return cls(key)  # type: ignore[arg-type]  # checked there

    def unwrap(self, slot: bytes) -> bytes:
        """The data key in a slot; ValueError if it was not sealed for this key."""
        if slot[:1] != bytes([BY_RSA]):
            raise ValueError("sealed by a passphrase, not for a private key")
        own, other = fingerprint(self.key.public_key()), slot[1:33]
        if own != other:
            raise ValueError(f"sealed for the key {other.hex()[:16]}, this is {own.hex()[:16]}")
        try:
            return self.key.decrypt(slot[33:], OAEP)
        except ValueError:
            raise ValueError("the header was changed") from None


def fingerprint(key: rsa.RSAPublicKey) -> bytes:
    """The sha256 of a public key in DER form, 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _check(key: object, kind: type[rsa.RSAPublicKey] | type[rsa.RSAPrivateKey]) -> None:
    if not isinstance(key, kind) or key.key_size < BITS:
        raise ValueError(f"an RSA key of at least {BITS} bits is wanted: `aisec vault keygen NAME` makes one")


class KeyFiles(NamedTuple):
    """Where a key pair lies."""

    public: Path
    private: Path


def generate_keys(name: StrPath, passphrase: Wraps) -> KeyFiles:
    """Make an RSA pair: `NAME.pub` in PEM form; and `NAME.key`, sealed by the passphrase, readable by its owner only.

    The private half is sealed as the vault seals any file: the encryption that `cryptography` and OpenSSL give to PEM
    by default is 2,048 rounds of PBKDF2, which resist no attacker.

    Args:
        name: path of both files without their endings.
        passphrase: wraps the data key of the private half.

    Returns:
        The paths of both files.

    Raises:
        FileExistsError: one of the files is there; a lost private key is lost data, so none is overwritten.
        FileNotFoundError: no folder for them.
    """
    files = KeyFiles(*(Path(f"{os.fspath(name)}{end}") for end in (".pub", ".key")))
    for file in files:
        if file.exists():
            raise FileExistsError(f"{file} is there already: choose another name")
        if not file.parent.is_dir():
            raise FileNotFoundError(f"no folder {file.parent} to put {file.name} in: make it first")
    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    secret = io.BytesIO(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with (
        written_beside(files.private) as beside,
        open(os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as sink,
    ):
        write_sealed(secret, sink, passphrase, inside=FILE)
    with written_beside(files.public) as beside:
        beside.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return files
