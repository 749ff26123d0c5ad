"""One number for a file or a folder."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aisec_lab.core.files import sha256_of
from aisec_lab.trust import content_sha256

COMMAND = r"cd FOLDER; find -L . -type f -printf '%P\n' | LC_ALL=C sort | xargs -rd '\n' sha256sum | sha256sum"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files whose names sort differently by language, by letters and by path."""
    folder = tmp_path / "folder"
    for name in ("b", "a/z", "a-b", "a b", "B", "é", "sub/deep/x.npz", ".hidden"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_a_folder_is_what_sha256sum_makes_of_it(folder: Path, tmp_path: Path) -> None:
    """The command of the docstring, and in it; an empty folder too."""
    assert COMMAND in (content_sha256.__doc__ or "").replace("\n    ", " ")
    for place in (folder, tmp_path / "empty"):
        place.mkdir(exist_ok=True)
        command = COMMAND.replace("FOLDER", str(place))
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert content_sha256(place) == done.stdout.split()[0]
    assert content_sha256(folder / "b") == sha256_of(folder / "b")


def test_names_and_bytes_count_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    """Not times, nor empty folders, nor whether DVC linked a file to its cache."""
    before = content_sha256(folder)
    os.utime(folder / "b", (0, 0))
    (folder / "empty").mkdir()
    (folder / "b").rename(tmp_path / "cached")
    (folder / "b").symlink_to(tmp_path / "cached")
    assert content_sha256(folder) == before
    found = {before}
    for spoil in (
        lambda: (tmp_path / "cached").write_text("c"),
        lambda: (folder / "b").rename(folder / "c"),
        lambda: (folder / "a/z").rename(folder / "z"),
        lambda: (folder / "new").touch(),
        lambda: shutil.rmtree(folder / "sub"),
    ):
        spoil()
        assert content_sha256(folder) not in found
        found.add(content_sha256(folder))


@pytest.mark.parametrize("name", ["line\nbreak", "back\\slash", "link to a folder", "broken link", "pipe"])
def test_what_has_no_clear_hash_is_refused(name: str, folder: Path) -> None:
    """It is named."""
    place = folder / name
    if "link" in name:
        place.symlink_to("sub" if "folder" in name else "nothing")
    elif name == "pipe":
        os.mkfifo(place)
    else:
        place.touch()
    with pytest.raises(ValueError, match="only plain files"):
        content_sha256(folder)


def test_nothing_has_no_hash(tmp_path: Path) -> None:
    """Said as such."""
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        content_sha256(tmp_path / "none")
