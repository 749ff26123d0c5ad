"""Files on their way between two machines: which they are, known by content, and the pieces in which they travel."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB
    from dvc_data.hashfile.state import State
    from dvc_objects.fs.base import FileSystem

BUNDLE = 1 << 24  # bytes that are sent at once
BYTECODE = "__pycache__"


class Blob(NamedTuple):
    """What a file contains.

    Args:
        md5: its hash, as DVC has it.
        size: in bytes.
    """

    md5: str
    size: int


class Parcel(NamedTuple):
    """Files and folders of a project.

    Args:
        folders: each folder, as a path from the root; also the empty ones.
        files: from each file's path from the root to what it contains.
    """

    folders: tuple[str, ...]
    files: dict[str, Blob]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """What the files contain, each once."""
        return tuple(dict.fromkeys(self.files.values()))


class Piece(NamedTuple):
    """A part of a blob.

    Args:
        md5: the blob's.
        start: of the part, in bytes.
        length: in bytes.
    """

    md5: str
    start: int
    length: int


def files_at(root: Path, paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """The folders and the files at some paths, all as paths from the root.

    Args:
        root: the project's.
        paths: files or folders, from the root; missing ones are left out, and so is Python's bytecode.
    """
    folders, files = [], []
    for path in paths:
        place = root / path
        if place.is_dir():
            for folder, inner, names in os.walk(place):
                inner[:] = [name for name in inner if name != BYTECODE]
                folders.append(os.path.relpath(folder, root))
                files += [os.path.relpath(os.path.join(folder, name), root) for name in names]
        elif place.exists():
            files.append(os.path.relpath(place, root))
    return folders, files


def pack(root: Path, paths: Iterable[str], state: "State | None" = None) -> Parcel:
    """The folders and files at some paths.

    Args:
        root, paths: as `files_at` takes them.
        state: DVC's memory of hashes, where there is one.
    """
    from dvc_data.hashfile.hash import hash_file
    from dvc_objects.fs.local import localfs

    folders, files = files_at(root, paths)
    found = {}
    for file in files:
        meta, hashed = hash_file(str(root / file), localfs, "md5", state)
        found[file] = Blob(str(hashed.value), int(meta.size or 0))
    return Parcel(tuple(folders), found)


def unpack(parcel: Parcel, root: Path, store: "HashFileDB") -> None:
    """Put copies of the files where they belong.

    Args:
        parcel: what to put.
        root: the folder below which all paths are meant.
        store: local, has all blobs of the parcel.
    """
    for folder in parcel.folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for path, blob in parcel.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).unlink(missing_ok=True)
        shutil.copyfile(store.oid_to_path(blob.md5), root / path)


def bundles(blobs: Iterable[Blob], size: int = BUNDLE) -> Iterator[list[Piece]]:
    """Cut blobs into pieces, and gather these so that each bundle but the last holds `size` bytes."""
    bundle: list[Piece] = []
    room = size
    for blob in blobs:
        start, over = 0, False
        while not over:
            piece = Piece(blob.md5, start, min(room, blob.size - start))
            bundle.append(piece)
            start, room = start + piece.length, room - piece.length
            over = start == blob.size
            if not room:
                yield bundle
                bundle, room = [], size
    if bundle:
        yield bundle


def read(files: dict[str, Path], pieces: Sequence[Piece]) -> list[bytes]:
    """The bytes of pieces.

    Args:
        files: from the md5 of each blob to a file that contains it.
        pieces: of those blobs.
    """
    parts = []
    for piece in pieces:
        with files[piece.md5].open("rb") as file:
            file.seek(piece.start)
            parts.append(file.read(piece.length))
    return parts


class Incoming:
    """Blobs that arrive piece by piece.

    Args:
        folder: where they are until they are complete; made, and removed when all of them are in the store.
        store: local; gets them once they are whole and their hash is right.
    """

    def __init__(self, folder: Path, store: "HashFileDB") -> None:
        self.folder, self.store = folder, store
        folder.mkdir(parents=True)

    def write(self, pieces: Sequence[Piece], parts: Sequence[bytes]) -> None:
        """Take pieces, in the order of `bundles`."""
        for piece, part in zip(pieces, parts, strict=True):
            with (self.folder / piece.md5).open("ab") as file:
                file.write(part)

    def finish(self) -> None:
        """Put all blobs into the store.

        Raises:
            ValueError: one does not have the hash that it was sent under.
        """
        from dvc_objects.fs.local import localfs

        names = sorted(path.name for path in self.folder.iterdir())
        add(self.store, {name: str(self.folder / name) for name in names}, localfs)
        shutil.rmtree(self.folder)


def add(store: "HashFileDB", files: dict[str, str], fs: "FileSystem") -> None:
    """Put files into a store, whole and with the right content.

    Args:
        store: a local one, such as DVC's cache.
        files: from the md5 of each to its path.
        fs: the file system of these paths.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: one whose content has another hash; it is not in the store.
    """
    store.add(list(files.values()), fs, list(files), verify=True)
    wrong = [file for md5, file in files.items() if not store.exists(md5)]
    if wrong:
        raise ValueError(f"{len(wrong)} of {len(files)} files came with another content than was sent, as {wrong[0]}")
