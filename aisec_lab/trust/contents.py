"""What an object is, in one number: the sha256 of a file, or of all files of a folder."""

import hashlib
import os
from pathlib import Path

from aisec_lab.core.files import sha256_of


def content_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, or that of a folder's listing.

    The listing is what `sha256sum` prints for every file below the folder, `<sha256>  <path>` a line, sorted by the
    bytes of the path, so that anyone can check it with
    `cd FOLDER; find -L . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -rd '\\n' sha256sum | sha256sum`.
    Names and bytes count; times, owners and empty folders do not, as in git and DVC. A link to a file counts as the
    file (DVC may link to its cache).

    Args:
        path: of the file or folder.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a link to a folder, something that is no file, or a name with a backslash or line break.
    """
    path = Path(path)
    if path.is_file():
        return sha256_of(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no file or folder at {path}")
    files = {}
    for below in path.rglob("*"):
        name = os.fsencode(below.relative_to(path).as_posix())
        if below.is_dir() and not below.is_symlink():
            continue
        if not below.is_file() or b"\n" in name or b"\\" in name:
            raise ValueError(f"{below}: only plain files can be hashed, without backslash or line break in their name")
        files[name] = sha256_of(below)
    listing = b"".join(sha256.encode() + b"  " + name + b"\n" for name, sha256 in sorted(files.items()))
    return hashlib.sha256(listing).hexdigest()
