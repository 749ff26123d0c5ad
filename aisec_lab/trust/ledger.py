"""The ledger: an append-only trail of what was done to datasets and models, in two files that git can hold."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aisec_lab.core.files import written_beside
from aisec_lab.trust.merkle import MerkleTree, consistency_path, inclusion_path
from aisec_lab.trust.records import RECORDED, LedgerChange, LedgerEntry, LedgerHead, check_signing_key, find_error, now
from aisec_lab.trust.signing_keys import make_signing_key, read_signing_key, write_verifying_key

ENTRIES, HEAD, PUBLIC_KEY = "entries.jsonl", "head.json", "public_key.pem"


@dataclass(frozen=True)
class Contents:
    """The bytes in a ledger's folder, not verified."""

    lines: tuple[bytes, ...]  # without their newlines
    torn: bytes  # after the last newline: of an append that was killed, and never acknowledged
    head: bytes | None


@dataclass(frozen=True)
class Ledger:
    """A folder with `entries.jsonl`, one signed entry a line, and `head.json`, signed over all of them.

    An append writes the line, waits until it is on the disk, and then puts the new head in place of the old one; only
    then does it return. A kill before that leaves one of three things, all valid: nothing, a line without its newline
    (never acknowledged: the next append removes it), or a whole line that the head does not count yet (it is signed:
    it stays, and the next head counts it). Writers wait for each other (`flock` on the entries); readers see no half.

    Args:
        folder: where the files are; it may be a copy.
    """

    folder: Path

    @classmethod
    def create(cls, folder: str | os.PathLike[str], key_file: str | os.PathLike[str]) -> "Ledger":
        """Begin a ledger: a key pair (the private key at `key_file`, or the one that is there), no entries, a head.

        Raises:
            ValueError: a ledger exists, or `key_file` exists and is no signing key.
        """
        ledger = cls(Path(folder))
        entries = ledger.folder / ENTRIES
        if (ledger.folder / HEAD).exists() or (entries.exists() and entries.stat().st_size):
            raise ValueError(f"there is a ledger at {folder}")
        key = read_signing_key(key_file) if Path(key_file).exists() else make_signing_key(key_file)
        ledger.folder.mkdir(parents=True, exist_ok=True)
        (ledger.folder / ".gitattributes").write_text("* -text -merge\n")  # neither line ends nor merges change a byte
        write_verifying_key(ledger.folder / PUBLIC_KEY, key.public_key())
        entries.touch()
        ledger._write_head(MerkleTree(), now(), key)  # last: before it there is no ledger, and this can be done again
        return ledger

    def read(self) -> Contents:
        """The bytes in the folder now, between two appends.

        Raises:
            FileNotFoundError: no ledger there.
        """
        if not (self.folder / ENTRIES).exists() and (self.folder / HEAD).exists():
            return Contents((), b"", (self.folder / HEAD).read_bytes())
        with self._locked("rb", fcntl.LOCK_SH) as file:
            return self._contents(file)

    def last(self, name: str) -> LedgerEntry | None:
        """The last entry about the object `name`, or None; unchecked, as `read` is."""
        return _last(name, self.read().lines)

    def append(self, change: LedgerChange, key: Ed25519PrivateKey) -> LedgerEntry:
        """Add an entry, and sign the new head.

        Args:
            change: where a sha256 is `RECORDED`, that of the object's last entry is taken (None without one).
            key: the private key of this ledger.

        Returns:
            The entry, once it is on the disk.

        Raises:
            FileNotFoundError: no ledger there.
            ValueError: the ledger is not what its head was signed over, or the key is another, or none: nothing is
                signed.
        """
        check_signing_key(key)
        with self._locked("r+b", fcntl.LOCK_EX) as file:
            contents = self._contents(file)
            tree = self._continued(contents, key.public_key())
            former = _last(change.object, contents.lines)
            recorded = {RECORDED: former.after if former else None}
            stated: dict[str, Any] = {field.name: getattr(change, field.name) for field in fields(change)}
            for name in ("before", "after"):
                stated[name] = recorded.get(stated[name], stated[name])
            time = now()
            entry = LedgerEntry(index=tree.size, root=tree.root.hex(), time=time, **stated).signed(key)
            tree.add(entry.line())

            file.truncate(file.tell() - len(contents.torn))
            file.seek(0, os.SEEK_END)
            file.write(entry.line() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._write_head(tree, time, key)
        return entry

    def prove_inclusion(self, index: int) -> dict[str, Any]:
        """An entry, the head, and the hashes between: JSON that `check_proof` checks.

        Raises:
            FileNotFoundError: no ledger there.
            ValueError: no such entry under the head, or entries that are not what it was signed over.
        """
        lines, head = self._under_head()
        path = [digest.hex() for digest in inclusion_path(lines, index)]
        return {"kind": "inclusion", "index": index, "entry": lines[index].decode(), "path": path, "head": asdict(head)}

    def prove_consistency(self, old: LedgerHead) -> dict[str, Any]:
        """The hashes that show this ledger to begin with all that `old` was signed over: JSON and errors as above."""
        lines, head = self._under_head()
        if old.size > len(lines):
            raise ValueError(f"the older head counts {old.size} entries, the ledger {len(lines)}: it was cut off")
        path = [digest.hex() for digest in consistency_path(lines, old.size)]
        return {"kind": "consistency", "old": asdict(old), "path": path, "head": asdict(head)}

    def _under_head(self) -> tuple[tuple[bytes, ...], LedgerHead]:
        contents = self.read()
        head = read_head(self.folder / HEAD, contents.head)
        lines = contents.lines[: head.size]
        if (len(lines), MerkleTree(lines).root.hex()) != (head.size, head.root):
            raise ValueError(f"{self.folder / ENTRIES} is not what its head was signed over: see `aisec ledger verify`")
        return lines, head

    def _continued(self, contents: Contents, key: Ed25519PublicKey) -> MerkleTree:
        """The tree of a ledger that is what its head says, but for one signed entry that it may not count yet."""
        mend = "see `aisec ledger verify`; nothing was signed"
        head = read_head(self.folder / HEAD, contents.head)
        if not head.is_signed(key):
            raise ValueError(f"{self.folder / HEAD} was not signed with this key: {mend}")
        tree, more = MerkleTree(contents.lines[: head.size]), contents.lines[head.size :]
        fits = (tree.size, tree.root.hex()) == (head.size, head.root)
        if not fits or any(find_error(line, head.size, head.root, key) for line in more):  # one at most has that index
            raise ValueError(f"{self.folder / ENTRIES} is not what its head was signed over: {mend}")
        for line in more:
            tree.add(line)
        return tree

    def _contents(self, file: IO[bytes]) -> Contents:
        *lines, torn = file.read().split(b"\n")
        head = self.folder / HEAD
        return Contents(tuple(lines), torn, head.read_bytes() if head.exists() else None)

    def _write_head(self, tree: MerkleTree, time: str, key: Ed25519PrivateKey) -> None:
        for left_by_a_kill in self.folder.glob(f".{HEAD}.*.part"):
            left_by_a_kill.unlink()
        with written_beside(self.folder / HEAD) as beside:
            beside.write_bytes(LedgerHead(size=tree.size, root=tree.root.hex(), time=time).signed(key).line() + b"\n")
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a power cut could restore an older head
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self, mode: str, how: int) -> Iterator[IO[bytes]]:
        """The entries, open and locked; the lock goes with the process, however it ends."""
        path = self.folder / ENTRIES
        while True:
            if not path.exists():
                if (self.folder / HEAD).exists():
                    raise ValueError(f"{path} is gone: see `aisec ledger verify`")
                raise FileNotFoundError(f"no ledger at {self.folder}: run `aisec ledger init`")
            with path.open(mode) as file:
                fcntl.flock(file, how)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield file
                    return
            # git put another file in its place while this one waited: lock that


def read_head(path: str | os.PathLike[str], content: bytes | None = None) -> LedgerHead:
    """Read a head, such as one kept elsewhere; its signature is not verified.

    Args:
        path: of the file.
        content: its bytes, if they were read before.

    Returns:
        The head, as the file states it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no head.
    """
    if content is None:
        if not Path(path).exists():
            raise FileNotFoundError(f"no head at {path}")
        content = Path(path).read_bytes()
    try:
        return LedgerHead.parse(content.removesuffix(b"\n"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _last(name: str, lines: tuple[bytes, ...]) -> LedgerEntry | None:
    entries = (LedgerEntry.parse(line) for line in reversed(lines))
    return next((entry for entry in entries if entry.object == name), None)
