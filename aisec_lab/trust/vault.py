"""The vault: datasets and checkpoints, encrypted at rest."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from aisec_lab.core.files import written_beside
from aisec_lab.trust.vault_folder import TarStream, unpack
from aisec_lab.trust.vault_format import CHUNK, FILE, FOLDER, Unwraps, Wraps, read_sealed, write_sealed

StrPath = str | os.PathLike[str]


def seal(source: StrPath, target: StrPath, key: Wraps, *, chunk: int = CHUNK) -> None:
    """Encrypt a file or a folder, in memory that does not grow with it.

    Args:
        source: a file; or a folder of files and folders, of which names and contents are kept, and nothing else.
        target: the sealed file. It appears whole or not at all; the source stays.
        key: `Passphrase` or `PublicKey`.
        chunk: bytes that are authenticated together, from 1 to 2**26; a file keeps the size it was sealed with.

    Raises:
        FileNotFoundError: no source, or no folder for the target.
        FileExistsError: something is at the target: the vault overwrites nothing.
        ValueError: a target inside the source; a link or a device in a folder; a file that changes meanwhile.
    """
    source, target = Path(source), Path(target)
    _check_places(source, target)
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{target} lies inside {source}, which shall be sealed: choose another place")
    inside = FOLDER if source.is_dir() else FILE
    with (
        TarStream(source) if inside == FOLDER else source.open("rb") as plain,
        written_beside(target) as beside,
        beside.open("wb") as sink,
    ):
        write_sealed(plain, sink, key, inside=inside, chunk=chunk)


def open_sealed(source: StrPath, target: StrPath, key: Unwraps) -> None:
    """Decrypt what `seal` wrote: all of it, or an error and nothing.

    Until the last tag is checked the plaintext is in a file without a name, which vanishes even if the process is
    killed (where the file system has no such files, in a hidden file that only its owner can read).

    Args:
        source: a sealed file.
        target: the file or folder that was sealed, now readable by its owner only.
        key: `Passphrase` or `PrivateKey`, whichever it was sealed for.

    Raises:
        FileNotFoundError: no source, or no folder for the target.
        FileExistsError: something is at the target: the vault overwrites nothing.
        ValueError: not a sealed file, the wrong key, or a file of which any bit has been changed, added, removed or
            moved. No key detects that an older sealed file has replaced a newer one: the ledger does.
    """
    source, target = Path(source), Path(target)
    _check_places(source, target)
    if source.is_dir():
        raise ValueError(f"{source} is a folder, and a sealed file is wanted")
    with source.open("rb") as sealed, _nameless(target) as (plain, name):
        try:
            inside = read_sealed(sealed, plain, key)
        except ValueError as error:
            raise ValueError(f"{source}: {error}; nothing was opened") from error
        plain.flush()
        if inside == FOLDER:
            plain.seek(0)
            _unpack_beside(plain, target)
        else:
            os.fsync(plain.fileno())
            _give_name(name, target)


def _check_places(source: Path, target: Path) -> None:
    if not source.is_file() and not source.is_dir():
        raise FileNotFoundError(f"no file or folder {source}")
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{target} is there already, and the vault overwrites nothing: remove or rename it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent} to put {target.name} in: make it first")


@contextmanager
def _nameless(target: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A file without a name, mode 0600, in the folder of `target`; and a path under which it can be given one."""
    hidden = None
    try:
        descriptor = os.open(target.parent, os.O_TMPFILE | os.O_RDWR, 0o600)
        name = Path(f"/proc/self/fd/{descriptor}")
    except OSError:  # not on every file system
        descriptor, path = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        name = hidden = Path(path)
    try:
        with open(descriptor, "w+b") as file:
            yield file, name
    finally:
        if hidden is not None:
            hidden.unlink(missing_ok=True)


def _give_name(name: Path, target: Path) -> None:
    """Let a file that `_nameless` gave appear at `target`."""
    if name.is_symlink():  # the entry of /proc: linkat follows it when it is told a directory, which it then ignores
        root = os.open("/", os.O_RDONLY)
        try:
            os.link(name, target, src_dir_fd=root)
        finally:
            os.close(root)
    else:
        name.rename(target)


def _unpack_beside(plain: IO[bytes], target: Path) -> None:
    """Let the folder in a tar stream appear at `target`, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".part", dir=target.parent) as part:
        folder = Path(part) / target.name
        folder.mkdir(mode=0o700)
        unpack(plain, folder)
        folder.rename(target)
