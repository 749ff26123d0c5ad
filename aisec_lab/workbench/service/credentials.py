"""API keys: shown once, stored as hashes, revoked for all workers at once."""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyotp

from aisec_lab.core.files import written_beside

CREDENTIALS = "credentials.json"  # in the folder of the service's state
PREFIX = "aisec"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{16}})_([\w-]{{43}})", re.ASCII)


@dataclass(frozen=True)
class Credential:
    """Whom a key stands for.

    Args:
        id: public half of the key, 16 hexadecimal digits.
        name: of the client or person.
        role: of the access policy (`configs/access`).
        sha256: of the secret half.
        totp: secret of the person's second factor, base32; None for a program, which releases nothing.
        revoked: whether it is refused.
    """

    id: str
    name: str
    role: str
    sha256: str = field(repr=False)
    totp: str | None = field(default=None, repr=False)
    revoked: bool = False


@dataclass(frozen=True)
class CredentialFile:
    """The credentials of a service in a JSON file that its account alone can read.

    A key is 256 random bits, so a plain SHA-256 keeps it as safe as a slow hash would: there is nothing to guess, and a
    slow one would let anybody keep the service busy with wrong keys. A TOTP secret cannot be hashed, since the service
    computes codes from it; it stands there in plain and is worth nothing without the key.

    Args:
        path: of the file; nobody is known before the first `add`.
    """

    path: Path

    def read(self) -> dict[str, Credential]:
        """The credentials by id.

        Raises:
            ValueError: the file is damaged, or others may read it.
        """
        if not self.path.exists():
            return {}
        if self.path.stat().st_mode & 0o077:
            raise ValueError(f"{self.path} may be read by others: `chmod 600 {self.path}`")
        try:
            return {one["id"]: Credential(**one) for one in json.loads(self.path.read_bytes())}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.path} is damaged ({error}): no key can be checked") from error

    def add(self, name: str, role: str, *, person: bool = False) -> tuple[str, str | None]:
        """Make a key.

        Args:
            name: of the client: lower-case letters, digits, `.`, `_`, `-`; each name has one valid key.
            role: of the access policy; the caller checks that there is one.
            person: whether to make a TOTP secret, too.

        Returns:
            The key and the `otpauth://` address of the TOTP secret, or None. The key is stored nowhere.

        Raises:
            ValueError: no such name, or one that has a key.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"a name is lower-case letters, digits, `.`, `_` and `-`, at most 63, got {name!r}")
        identity, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        totp = pyotp.random_base32() if person else None
        with self._locked() as known:
            if any(one.name == name and not one.revoked for one in known.values()):
                raise ValueError(f"{name} has a key: revoke it first (`aisec service revoke {name}`)")
            known[identity] = Credential(identity, name, role, _hash(secret), totp)
        address = pyotp.TOTP(totp).provisioning_uri(name=name, issuer_name="aisec") if totp else None
        return f"{PREFIX}_{identity}_{secret}", address

    def revoke(self, name: str) -> None:
        """Refuse the key of a client from now on; ValueError where it has none that is valid."""
        with self._locked() as known:
            valid = [one for one in known.values() if one.name == name and not one.revoked]
            if not valid:
                names = ", ".join(sorted(one.name for one in known.values() if not one.revoked)) or "nobody"
                raise ValueError(f"{name} has no valid key; {names} has")
            known[valid[0].id] = replace(valid[0], revoked=True)

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Credential]]:
        """The credentials, to be changed; written at the end if nothing was raised."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self.read()
            yield known
            text = json.dumps([asdict(one) for one in known.values()], indent=1)
            with (
                written_beside(self.path) as beside,
                open(os.open(beside, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file,
            ):
                file.write(text)
        finally:
            os.close(lock)


class Keyring:
    """What a worker knows of the credentials: read again as soon as the file is another one.

    Each change puts a new file in place of the old one, so that looking at its inode and time, some microseconds, shows
    every revocation to the next request.

    Args:
        file: of the credentials.
    """

    def __init__(self, file: CredentialFile) -> None:
        self.file = file
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, Credential] = {}

    def find(self, token: str) -> Credential | None:
        """The credential of a key; None for one that is unknown, misspelt or revoked.

        Raises:
            ValueError: the file is damaged.
        """
        match = TOKEN.fullmatch(token)
        credential = self._current().get(match[1]) if match else None
        expected = credential.sha256 if credential else _hash("")  # compared in any case
        same = hmac.compare_digest(_hash(match[2] if match else ""), expected)
        return credential if credential and same and not credential.revoked else None

    def _current(self) -> dict[str, Credential]:
        try:
            now = self.file.path.stat()
        except FileNotFoundError:
            return {}
        if (state := (now.st_ino, now.st_mtime_ns, now.st_size)) != self._seen:
            self._known = self.file.read()
            self._seen = state
        return self._known


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
