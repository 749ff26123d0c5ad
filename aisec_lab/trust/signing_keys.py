"""The ledger's key pair: the private key outside git, the public one beside the ledger."""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from aisec_lab.core.files import written_beside


def make_signing_key(path: str | os.PathLike[str]) -> Ed25519PrivateKey:
    """Make an Ed25519 key and write it, whole or not at all, readable by its owner alone.

    Raises:
        ValueError: the file exists; it is never overwritten.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"there is a key at {path}: what it signed could not be continued without it")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with (
        written_beside(path) as beside,
        open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        file.write(pem)
    return key


def read_signing_key(path: str | os.PathLike[str]) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        path: of a PEM file.

    Returns:
        The key.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no Ed25519 key, or one that others on this machine may read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no signing key at {path}: only who holds the key of this ledger can append to it")
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path} may be read by others: `chmod 600 {path}`")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is no private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is no Ed25519 key")
    return key


def write_verifying_key(path: str | os.PathLike[str], key: Ed25519PublicKey) -> None:
    """Write a public key, whole or not at all."""
    with written_beside(path) as beside:
        beside.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def read_verifying_key(path: str | os.PathLike[str]) -> Ed25519PublicKey:
    """Read a public key.

    Args:
        path: of a PEM file.

    Returns:
        The key.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no Ed25519 key.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no public key at {path}")
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} is no Ed25519 key")
    return key
