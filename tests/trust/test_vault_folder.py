"""Folders in the vault: the same names and bytes, or nothing; whoever sealed it."""

import io
import os
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aisec_lab.trust.vault import open_sealed, seal
from aisec_lab.trust.vault_folder import TarStream
from aisec_lab.trust.vault_format import FOLDER, write_sealed
from aisec_lab.trust.vault_passphrase import Passphrase

QUICK = Passphrase("correct horse", n=2)
ANY = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
letters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
names = st.one_of(st.text(letters, min_size=1, max_size=60), st.sampled_from(["n" * 250, "\udcff\udc80"])).filter(
    lambda name: name not in (".", "..") and len(os.fsencode(name)) <= 255
)
trees = st.recursive(st.binary(max_size=1100), lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=8)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        yield Path(place)


def grow(tree: dict[str, object] | bytes, place: Path) -> None:
    """Lay a tree of names and contents on the disk."""
    if isinstance(tree, bytes):
        place.write_bytes(tree)
    else:
        place.mkdir()
        for name, inner in tree.items():
            grow(inner, place / name)  # type: ignore[arg-type]


def read(place: Path) -> object:
    """The tree that lies there."""
    return {inner.name: read(inner) for inner in place.iterdir()} if place.is_dir() else place.read_bytes()


@ANY
@given(tree=st.dictionaries(names, trees, max_size=4))
def test_a_folder_comes_back(tree: dict[str, object]) -> None:
    """Empty ones, long names, names that are no text, files of any length in a tar block."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        here = Path(place)
        grow(tree, here / "one")
        seal(here / "one", here / "sealed", QUICK, chunk=100)
        open_sealed(here / "sealed", here / "two", QUICK)
        assert read(here / "two") == tree
        assert {path.name for path in here.iterdir()} == {"one", "two", "sealed"}


def test_equal_folders_give_equal_bytes(folder: Path) -> None:
    """Whatever the order, times and modes; and any tar reads them."""
    grow({"b": b"2", "a": {"c": b"3"}}, folder / "one")
    grow({"a": {"c": b"3"}, "b": b"2"}, folder / "two")
    os.utime(folder / "two/b", (0, 0))
    (folder / "two/b").chmod(0o755)
    streams = [io.BufferedReader(TarStream(folder / name)).read() for name in ("one", "two")]
    assert streams[0] == streams[1]
    with tarfile.open(fileobj=io.BytesIO(streams[0])) as tar:
        assert tar.getnames() == ["a", "a/c", "b"]


def link(place: Path) -> None:
    (place / "link").symlink_to("/etc/passwd")


def pipe(place: Path) -> None:
    os.mkfifo(place / "pipe")


@pytest.mark.parametrize("spoil", [link, pipe])
def test_links_and_devices_are_refused_by_name(spoil: Callable[[Path], None], folder: Path) -> None:
    """What could not come back is not left out in silence."""
    grow({"sub": {}}, folder / "one")
    spoil(folder / "one/sub")
    with pytest.raises(ValueError, match=f"one/sub/{spoil.__name__} is neither file nor folder"):
        seal(folder / "one", folder / "sealed", QUICK)
    assert not (folder / "sealed").exists()


@pytest.mark.parametrize("change", [b"longer than it was", b""], ids=["grows", "shrinks"])
def test_a_file_that_changes_under_the_seal_is_refused(change: bytes, folder: Path) -> None:
    """Its length was written before its bytes were read."""
    grow({"a": b"as it was"}, folder / "one")
    stream = TarStream(folder / "one")
    stream.read(512)
    (folder / "one/a").write_bytes(change)
    with pytest.raises(ValueError, match="one/a changed while it was read"):
        stream.read()


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


HOSTILE = {
    "upwards": [entry("../out", size=1)],
    "absolute": [entry("/tmp/aisec-out", size=1)],
    "upwards inside": [entry("a", type=tarfile.DIRTYPE), entry("a/../../out", size=1)],
    "symbolic link": [entry("a", type=tarfile.SYMTYPE, linkname="..")],
    "hard link": [entry("a", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "device": [entry("a", type=tarfile.CHRTYPE)],
    "the same name twice": [entry("a", size=1), entry("a", size=1)],
    "a file as a folder": [entry("a", size=1), entry("a/b", size=1)],
    "no folder for it": [entry("a/b", size=1)],
    "sparse": [entry("a", size=1, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})],
}


def tar_of(entries: list[tarfile.TarInfo]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info in entries:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


STREAMS = (
    {name: tar_of(entries) for name, entries in HOSTILE.items()}
    | {
        "empty": b"",
        "no tar": b"no tar",
        "cut short": tar_of([entry("a", size=2000)])[:900],
        "a length that leads back": tar_of([entry("a", pax_headers={"size": "-512"})]),  # CVE-2025-8194: read for ever
        "header upon header": tar_of([entry("a", pax_headers={"comment": "c"})])[:1024] * 2000,
    }
)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_a_hostile_sealer_gets_nothing_written(stream: bytes, folder: Path) -> None:
    """Whoever holds the public key can seal anything: authentic is not the same as harmless."""
    with (folder / "sealed").open("wb") as sink:
        write_sealed(io.BytesIO(stream), sink, QUICK, inside=FOLDER)
    (folder / "deep").mkdir()
    with pytest.raises(ValueError, match="not a folder that the vault sealed"):
        open_sealed(folder / "sealed", folder / "deep/target", QUICK)
    assert read(folder / "deep") == {}
    assert {path.name for path in folder.iterdir()} == {"sealed", "deep"}


@pytest.mark.parametrize("kind", ["file", "folder", "many files"])
def test_memory_does_not_grow(kind: str, folder: Path) -> None:
    """Eight times as much, the same peak; the names in one folder are held, its contents are not."""
    chunk = 2**14

    def peak(times: int) -> int:
        content = bytes(2**20)
        tree = {"file": content * times, "folder": {"a": content * times}, "many files": {}}[kind]
        if kind == "many files":
            tree = {f"folder{number}": {"a": b"x"} for number in range(40 * times)}
        grow(tree, folder / f"plain{times}")
        tracemalloc.start()
        seal(folder / f"plain{times}", folder / f"sealed{times}", QUICK, chunk=chunk)
        open_sealed(folder / f"sealed{times}", folder / f"opened{times}", QUICK)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(8) - peak(2) < 2**17
