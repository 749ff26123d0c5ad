"""Atomic file writes, and hashes of files."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: to a temporary file beside it, which is renamed once it is complete.

    Args:
        path: of the file; its folder must exist.

    Yields:
        A temporary path in the same folder, to be written. After an error, or a kill at any moment, `path` is as it
        was before.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as JSON with sorted keys, atomically.

    Args:
        path: of the file; its folder must exist.
        value: what `json` can write.
    """
    with written_beside(path) as beside:
        beside.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
