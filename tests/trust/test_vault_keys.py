"""Passphrases, and RSA keys on disk."""

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from aisec_lab.trust.vault import open_sealed, seal
from aisec_lab.trust.vault_passphrase import Passphrase
from aisec_lab.trust.vault_rsa import KeyFiles, PrivateKey, PublicKey, generate_keys

QUICK = Passphrase("correct horse", n=2)
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
WEAK = {"2048 bits": rsa.generate_private_key(65537, 2048), "no RSA": ec.generate_private_key(ec.SECP256R1())}


@pytest.mark.parametrize("form", ["caf\u00e9 in the morning", "cafe\u0301 in the morning"])
def test_a_passphrase_does_not_depend_on_how_its_letters_are_composed(form: str) -> None:
    """Two keyboards may write one letter in two ways; and each slot holds its own cost."""
    slot = Passphrase("caf\u00e9 in the morning", n=2).wrap(bytes(32))
    assert Passphrase(form, n=4).unwrap(slot) == bytes(32)


def test_the_default_cost_is_what_owasp_asks() -> None:
    """128 MiB for each guess; the passphrase is in no repr."""
    key = Passphrase("correct horse")
    assert (key.n, key.r, key.p) == (2**17, 8, 1)
    assert "horse" not in repr(key)
    assert QUICK.unwrap(key.wrap(bytes(32))) == bytes(32)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Passphrase("short"), "at least 8 characters"),
    (lambda: Passphrase(b"correct horse"), "is a string, got a bytes"),
    (lambda: Passphrase("long enough", n=1000), "power of two"),
    (lambda: Passphrase("long enough", n=2**24), "up to 1073741824 bytes"),
    (lambda: Passphrase("long enough", r=0), "1..255"),
])  # fmt: skip
def test_a_useless_passphrase_is_refused(make: Callable[[], Passphrase], message: str) -> None:
    """What was given, what is accepted."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    return generate_keys(tmp_path_factory.mktemp("keys") / "lab", QUICK)


def test_a_pair_is_made_once_and_the_private_half_is_private(files: KeyFiles) -> None:
    """A lost private key is lost data."""
    assert [file.name for file in files] == ["lab.pub", "lab.key"]
    assert stat.S_IMODE(files.private.stat().st_mode) == 0o600
    before = files.private.read_bytes()
    with pytest.raises(FileExistsError, match=r"lab\.pub is there already"):
        generate_keys(files.private.with_suffix(""), QUICK)
    assert files.private.read_bytes() == before


def test_no_key_without_a_folder(tmp_path: Path) -> None:
    """Said before the key is made."""
    with pytest.raises(FileNotFoundError, match="make it first"):
        generate_keys(tmp_path / "no/lab", QUICK)


def test_the_halves_fit_and_the_private_one_is_shown_nowhere(files: KeyFiles) -> None:
    """3,072 bits; in no repr; in no file as it is."""
    public, private = PublicKey.read(files.public), PrivateKey.read(files.private, QUICK)
    assert private.key.public_key() == public.key
    assert public.key.key_size == 3072
    assert repr(private) == "PrivateKey()"
    assert b"PRIVATE" not in files.private.read_bytes()


def test_the_private_half_is_an_ordinary_sealed_file(files: KeyFiles, tmp_path: Path) -> None:
    """Its PEM form can be had, by the passphrase alone."""
    open_sealed(files.private, tmp_path / "lab.pem", QUICK)
    key = load_pem_private_key((tmp_path / "lab.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.public_key() == PublicKey.read(files.public).key


def test_a_wrong_passphrase_and_a_wrong_file_are_told_apart(files: KeyFiles, tmp_path: Path) -> None:
    """One line each."""
    with pytest.raises(ValueError, match=r"lab\.key, which should be a private key of the vault: wrong passphrase"):
        PrivateKey.read(files.private, Passphrase("correct horsf", n=2))
    with pytest.raises(ValueError, match="not a sealed file"):
        PrivateKey.read(files.public, QUICK)
    with pytest.raises(ValueError, match="holds no public key in PEM form"):
        PublicKey.read(files.private)
    (tmp_path / "text").write_text("no key")
    seal(tmp_path / "text", tmp_path / "text.key", QUICK)
    with pytest.raises(ValueError, match=r"text\.key, which should be a private key"):
        PrivateKey.read(tmp_path / "text.key", QUICK)


def test_what_is_no_key_neither_seals_nor_opens(files: KeyFiles, tmp_path: Path) -> None:
    """A passphrase as it was typed, and the wrong half of a pair; nothing is left behind."""
    (tmp_path / "text").write_text("x")
    seal(tmp_path / "text", tmp_path / "sealed", QUICK)
    for key in ("correct horse", b"correct horse", PrivateKey.read(files.private, QUICK)):
        with pytest.raises(ValueError, match=f"a Passphrase or a PublicKey seals, got a {type(key).__name__}"):
            seal(tmp_path / "text", tmp_path / "other", key)
    for key in ("correct horse", PublicKey.read(files.public)):
        with pytest.raises(ValueError, match=f"a Passphrase or a PrivateKey opens, got a {type(key).__name__}"):
            open_sealed(tmp_path / "sealed", tmp_path / "other", key)
    with pytest.raises(ValueError, match="seals, got a str"):
        generate_keys(tmp_path / "lab", "correct horse")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sealed", "text"]


def test_the_error_says_for_whom_it_was_sealed(files: KeyFiles, tmp_path: Path) -> None:
    """By the first digits of the fingerprint, which `openssl pkey -pubin -outform DER | sha256sum` gives too."""
    other = PrivateKey(rsa.generate_private_key(65537, 3072))
    (tmp_path / "text").write_text("x")
    seal(tmp_path / "text", tmp_path / "sealed", PublicKey.read(files.public))
    der = PublicKey.read(files.public).key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match=f"sealed for the key {hashlib.sha256(der).hexdigest()[:16]}, this is "):
        open_sealed(tmp_path / "sealed", tmp_path / "opened", other)


@pytest.mark.parametrize("key", WEAK.values(), ids=WEAK.keys())
def test_weaker_keys_are_refused_in_both_halves(key: Key, tmp_path: Path) -> None:
    """RSA of at least 3,072 bits, or nothing."""
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "it.pub").write_bytes(public)
    (tmp_path / "it.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    seal(tmp_path / "it.pem", tmp_path / "it.key", QUICK)
    with pytest.raises(ValueError, match="at least 3072 bits"):
        PublicKey.read(tmp_path / "it.pub")
    with pytest.raises(ValueError, match="at least 3072 bits"):
        PrivateKey.read(tmp_path / "it.key", QUICK)
