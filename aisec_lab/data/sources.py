"""Where files come from: a mirror first, then the network; never with another checksum."""

import os
import shutil
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tqdm import tqdm

from aisec_lab.core.files import sha256_of, written_beside

MIRROR = "AISEC_MIRROR"  # names a directory with copies of public files
DOWNLOADS = ".downloads"


@dataclass(frozen=True)
class File:
    """A public file.

    Args:
        path: where a mirror has it, from the mirror's folder.
        sha256: of its bytes.
        url: where the network has it, or None.
    """

    path: str
    sha256: str
    url: str | None = None


def fetch(alternatives: tuple[tuple[File, ...], ...], cache: Path) -> tuple[tuple[File, ...], list[Path]]:
    """Find the files of the first alternative that can be had: whole in the mirror, else from the network.

    Args:
        alternatives: sets of files, each enough by itself.
        cache: folder that keeps downloads.

    Returns:
        The alternative, and the paths of its files, each with the right checksum.

    Raises:
        FileNotFoundError: none can be had; says which file to put where.
        ValueError: a checksum that does not match; names file, expected and found. A bad download is not kept.
    """
    mirror = os.environ.get(MIRROR)
    for files in alternatives:
        places = [Path(mirror or "") / file.path for file in files]
        if mirror and all(place.exists() for place in places):
            for file, place in zip(files, places, strict=True):
                verify(file, place)
            return files, places
    for files in alternatives:
        if all(file.url for file in files):
            return files, [download(file, cache) for file in files]
    wanted = ", ".join(f"{file.path} (sha256 {file.sha256})" for file in alternatives[0])
    raise FileNotFoundError(f"no public address serves {wanted}: put it below a directory and name that in {MIRROR}")


def verify(file: File, place: Path) -> None:
    """Refuse, with a ValueError, bytes that do not have the file's checksum."""
    found = sha256_of(place)
    if found != file.sha256:
        raise ValueError(
            f"{place}: expected sha256 {file.sha256}, found {found}: damaged, or another file; remove or replace it"
        )


def download(file: File, cache: Path) -> Path:
    """The file in the cache, downloaded if it is not there; it raises the errors of `fetch`."""
    place = cache / file.path
    if place.exists():
        verify(file, place)
        return place
    assert file.url is not None
    place.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(place) as beside:
        try:
            with urlopen(file.url, timeout=60) as response, beside.open("wb") as out:
                total = int(response.headers.get("Content-Length") or 0) or None
                with tqdm.wrapattr(out, "write", total=total, desc=place.name, unit="B", unit_scale=True) as sink:
                    shutil.copyfileobj(response, sink)
        except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
            raise FileNotFoundError(
                f"cannot download {file.url} ({getattr(error, 'reason', error)}): put {file.path} "
                f"(sha256 {file.sha256}) below a directory and name that in {MIRROR}"
            ) from error
        found = sha256_of(beside)
        if found != file.sha256:
            raise ValueError(
                f"{file.url}: expected sha256 {file.sha256}, found {found}: cut short, or changed there; not kept"
            )
    return place
