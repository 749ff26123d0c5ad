"""Files between two machines arrive as they were sent, or not at all."""

import hashlib
from pathlib import Path

import pytest
from dvc_data.hashfile.db.local import LocalHashFileDB
from dvc_objects.fs.local import localfs
from hypothesis import given
from hypothesis import strategies as st

from aisec_lab.workbench.repro.parcel import Blob, Incoming, Parcel, add, bundles, pack, read, unpack

FILES = {"data/a": b"twelve bytes", "data/in/b": b"", "data/in/c": b"twelve bytes", "one": b"x" * 100}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(content)
    (tmp_path / "root" / "data" / "empty").mkdir()
    (tmp_path / "root" / "data" / "__pycache__").mkdir()
    (tmp_path / "root" / "data" / "__pycache__" / "a.pyc").touch()
    return tmp_path / "root"


@pytest.fixture
def store(tmp_path: Path) -> LocalHashFileDB:
    return LocalHashFileDB(localfs, str(tmp_path / "store"), hash_name="md5")


def test_a_parcel_says_what_lies_there(root: Path) -> None:
    parcel = pack(root, ["data", "one", "missing"])
    assert set(parcel.folders) == {"data", "data/in", "data/empty"}
    assert parcel.files == {
        name: Blob(hashlib.md5(content).hexdigest(), len(content)) for name, content in FILES.items()
    }


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(1, 9))
def test_bundles_hold_every_byte_once_and_in_order(sizes: list[int], size: int) -> None:
    blobs = [Blob(str(place), length) for place, length in enumerate(sizes)]
    sent = list(bundles(blobs, size))
    assert all(sum(piece.length for piece in bundle) == size for bundle in sent[:-1])
    assert all(0 < sum(piece.length for piece in bundle) <= size or sizes[-1] == 0 for bundle in sent[-1:])
    for md5, length in blobs:
        pieces = [piece for bundle in sent for piece in bundle if piece.md5 == md5]
        ends = [piece.start + piece.length for piece in pieces]
        assert [piece.start for piece in pieces] == [0, *ends[:-1]]
        assert ends[-1] == length


def test_what_is_sent_in_pieces_arrives(root: Path, store: LocalHashFileDB, tmp_path: Path) -> None:
    parcel = pack(root, ["data", "one"])
    files = {blob.md5: root / name for name, blob in parcel.files.items()}
    incoming = Incoming(tmp_path / "incoming", store)
    for pieces in bundles(parcel.blobs, 7):
        incoming.write(pieces, read(files, pieces))
    incoming.finish()
    assert not (tmp_path / "incoming").exists()
    there = tmp_path / "there"
    unpack(parcel, there, store)
    assert pack(there, ["."]).files == parcel.files
    assert (there / "data" / "empty").is_dir()
    (there / "one").write_text("a stage may write over what it got")
    assert Path(store.oid_to_path(parcel.files["one"].md5)).read_bytes() == FILES["one"]


def test_what_arrives_with_another_content_is_refused(store: LocalHashFileDB, tmp_path: Path) -> None:
    right, wrong = (hashlib.md5(text).hexdigest() for text in (b"right", b"wrong"))
    incoming = Incoming(tmp_path / "incoming", store)
    for pieces in bundles([Blob(right, 5), Blob(wrong, 5)]):
        incoming.write(pieces, [b"right"] * 2)
    with pytest.raises(ValueError, match="1 of 2 files came with another content"):
        incoming.finish()
    assert store.exists(right)
    assert not store.exists(wrong)


def test_what_is_missing_is_an_error(store: LocalHashFileDB, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        add(store, {"0" * 32: str(tmp_path / "missing")}, localfs)
    assert not store.exists("0" * 32)


def test_a_parcel_knows_each_content_once() -> None:
    same = Blob("0" * 32, 1)
    assert Parcel((), {"a": same, "b": same}).blobs == (same,)
