"""A folder as one stream of bytes, and back: names and contents, nothing else."""

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

BLOCK = tarfile.BLOCKSIZE
PIECE = 2**20  # bytes
# what tarfile and the disk raise at a stream that the vault did not make: anybody with a public key can seal anything
HOSTILE = (ValueError, FileExistsError, FileNotFoundError, NotADirectoryError, RecursionError)


class TarStream(io.RawIOBase):
    """The tar stream (POSIX pax) of a folder, to be read: made as it goes, so that memory does not grow with the files.

    Entries are sorted, and carry no times, owners or modes: equal folders give equal bytes.

    Raises:
        ValueError: while it is read, at a symbolic link or anything else that is neither file nor folder, and at a
            file that changes under it.
    """

    def __init__(self, folder: Path) -> None:
        self._pieces, self._rest = _pieces(folder), memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a part of the buffer; 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        length = min(len(buffer), len(self._rest))
        buffer[:length] = self._rest[:length]
        self._rest = self._rest[length:]
        return length


def _pieces(folder: Path) -> Iterator[bytes]:
    yield from _entries(folder, PurePosixPath())
    yield bytes(2 * BLOCK)  # the end of a tar stream


def _entries(folder: Path, below: PurePosixPath) -> Iterator[bytes]:
    """The entries of a folder, those of its folders after their own."""
    for name in sorted(os.listdir(folder)):
        path, entry = folder / name, tarfile.TarInfo(str(below / name))
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is neither file nor folder (a link?): put a copy there (`dvc unprotect`)")
        if path.is_dir():
            entry.type = tarfile.DIRTYPE
            yield entry.tobuf(tarfile.PAX_FORMAT)
            yield from _entries(path, below / name)
        else:
            yield from _file(path, entry)


def _file(path: Path, entry: tarfile.TarInfo) -> Iterator[bytes]:
    with path.open("rb") as file:
        left = entry.size = os.fstat(file.fileno()).st_size
        yield entry.tobuf(tarfile.PAX_FORMAT)
        while piece := file.read(PIECE):
            left -= len(piece)
            yield piece
    if left:
        raise ValueError(f"{path} changed while it was read: try again")
    yield bytes(-entry.size % BLOCK)


def unpack(stream: IO[bytes], folder: Path) -> None:
    """Write the files of a tar stream into an empty folder, readable by its owner only.

    Args:
        stream: may be read from any place.
        folder: exists, and is empty.

    Raises:
        ValueError: no tar stream; a name that leads out of the folder; a link, a device, a name that comes twice.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (entry := tar.next()) is not None:
                _unpack_entry(tar, entry, folder)
                tar.members = []  # type: ignore[attr-defined]  # else it remembers every entry
    except (tarfile.TarError, *HOSTILE) as error:
        raise ValueError(f"not a folder that the vault sealed ({error})") from error


def _unpack_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(entry.name)
    plain = entry.type in (tarfile.REGTYPE, tarfile.DIRTYPE) and not entry.issparse()
    if name.is_absolute() or ".." in name.parts or not plain:
        raise ValueError(f"entry {entry.name!r}")
    if entry.isdir():
        (folder / name).mkdir(mode=0o700)
        return
    content = tar.extractfile(entry)
    assert content is not None
    descriptor = os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        shutil.copyfileobj(content, file, PIECE)
