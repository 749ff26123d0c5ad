"""What a ledger is made of: entries and heads, each one line of canonical JSON with an Ed25519 signature in it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

RECORDED = "recorded"  # a sha256 that the ledger looks up: the one of the object's last entry
SHA256 = re.compile("[0-9a-f]{64}")
ACTION = re.compile("[a-z][a-z0-9_-]*")


def canonical(value: Mapping[str, Any]) -> bytes:
    """The one spelling of a record: keys sorted, no spaces, UTF-8. What is spelled otherwise was not written here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class LedgerChange:
    """A change of an object, to be appended to the ledger.

    Args:
        who: the author.
        action: one lower-case word: "accept", "train", "rollback", "refuse", …
        object: path in the project, such as "data/digits".
        why: the reason.
        before: sha256 before the change; None if there was nothing.
        after: sha256 after the change; None if nothing is left, RECORDED if nothing changed.
        restore: where exactly these bytes can be restored from: "dvc:<md5>", "git:<commit>".
        commit: of the project, when it was done.
        config: hash of the configuration.

    Raises:
        ValueError: an action that is not one lower-case word, a text that is empty or has characters without a glyph
            in one line (escape codes, line breaks, marks that turn the writing direction), or no sha256.
    """

    who: str
    action: str
    object: str
    why: str
    before: str | None = RECORDED
    after: str | None = RECORDED
    restore: str | None = None
    commit: str | None = None
    config: str | None = None

    def __post_init__(self) -> None:
        if not ACTION.fullmatch(self.action):
            raise ValueError(f"an action is one lower-case word such as accept or roll-back, got {self.action!r}")
        for name in ("who", "object", "why", "restore", "commit", "config"):
            text = getattr(self, name)
            if text is not None and not (text.strip() and text.isprintable()):
                raise ValueError(f"{name} must be one printable line, got {text!r}")
        for name in ("before", "after"):
            sha256 = getattr(self, name)
            if sha256 not in (None, RECORDED) and not SHA256.fullmatch(sha256):
                raise ValueError(f"{name} must be the 64 hexadecimal digits of a sha256, got {sha256!r}")


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A record with a signature over all its other fields, and over what kind of record it is."""

    signature: str = ""

    KIND: ClassVar[bytes]  # an entry's signature never passes for a head's

    def signed(self, key: Ed25519PrivateKey) -> Self:
        """The same record with its signature; ValueError for what is no private key of a ledger."""
        check_signing_key(key)
        return replace(self, signature=key.sign(self._message()).hex())

    def is_signed(self, key: Ed25519PublicKey) -> bool:
        """Whether the holder of the private key has signed exactly this.

        Raises:
            ValueError: another kind of key, under which every signature would look forged.
        """
        if not isinstance(key, Ed25519PublicKey):
            given = type(key).__name__
            raise ValueError(f"an Ed25519 public key verifies, got a {given}: take read_verifying_key(path)")
        try:
            signature = bytes.fromhex(self.signature)
            key.verify(signature, self._message())
        except (ValueError, TypeError, InvalidSignature):
            return False
        return signature.hex() == self.signature  # capitals would be a second spelling of the same record

    def line(self) -> bytes:
        """Its canonical spelling, without a newline."""
        return canonical(vars(self))

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Read a record back.

        Raises:
            ValueError: not the canonical spelling of such a record. Signed or not is another question.
        """
        try:
            record = cls(**json.loads(line))
            if record.line() == line:
                return record
        except (ValueError, TypeError, RecursionError):
            pass
        raise ValueError(f"no {cls.KIND.split()[-1].decode()} of a ledger: {line[:60]!r}")

    def _message(self) -> bytes:
        return self.KIND + canonical({name: value for name, value in vars(self).items() if name != "signature"})


@dataclass(frozen=True, kw_only=True)
class LedgerEntry(Signed):
    """A change in its place in the ledger.

    Args:
        index: of the entry, from 0.
        root: of the Merkle tree over all lines before it, in hexadecimal digits.
        time: when it was appended, UTC, in ISO 8601.
        who, action, object, why, before, after, restore, commit, config: the fields of its `LedgerChange`.
    """

    KIND = b"aisec ledger entry\n"

    index: int
    root: str
    time: str
    who: str
    action: str
    object: str
    why: str
    before: str | None
    after: str | None
    restore: str | None
    commit: str | None
    config: str | None


@dataclass(frozen=True, kw_only=True)
class LedgerHead(Signed):
    """The state of the ledger at some time: a copy kept elsewhere shows whether the ledger still begins with it.

    Args:
        size: number of entries.
        root: of the Merkle tree over all of them, in hexadecimal digits.
        time: when the last of them was appended, UTC, in ISO 8601.
    """

    KIND = b"aisec ledger head\n"

    size: int
    root: str
    time: str


def check_signing_key(key: object) -> None:
    """Refuse, with a ValueError, what no ledger is signed with."""
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"an Ed25519 private key signs, got a {type(key).__name__}: take read_signing_key(path)")


def find_error(line: bytes, index: int, root: str, key: Ed25519PublicKey) -> str | None:
    """What is wrong with a line that stands at `index`, after lines whose root is `root`; None where nothing is."""
    try:
        entry = LedgerEntry.parse(line)
    except ValueError:
        return "is no entry: it was edited, or written by something else"
    if not entry.is_signed(key):
        return "was edited, or not written by the holder of this ledger's key"
    if entry.index > index:
        return f"is missing: entry {entry.index} stands in its place"
    if entry.index < index:
        return f"is out of its place: entry {entry.index} stands there"
    if entry.root != root:
        return "does not follow the entries before it: two histories with the same key were mixed"
    return None
