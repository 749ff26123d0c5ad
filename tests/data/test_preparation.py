"""`data/NAME/`: the same bytes each time, whole or not at all, and held against its card."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from aisec_lab.data import CATALOG, CatalogEntry, File, Prepared, prepare
from aisec_lab.data.preparation import array_sha256
from aisec_lab.data.readers import Raw

X = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2) * 11
Y = np.array([0, 1, 1, 0, 2, 2])


def toy(x: np.ndarray, y: np.ndarray) -> Raw:
    """The training rows X, Y, and other test rows."""
    return Raw({"train": (X, Y), "test": (x, y)}, ("a", "b", "c"))


def offer(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a set `toy` into the catalog."""
    entry = CatalogEntry("Toy", "here", "CC0", "nobody", {(): lambda files: raw})
    monkeypatch.setitem(CATALOG, "toy", entry)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds `toy`, prepared."""
    offer(toy(X[:3], Y[:3]), monkeypatch)
    prepare("toy", tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_twice_prepared_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    """Over the former one, and in another folder."""
    assert prepare(name, tmp_path / "one") == tmp_path / "one" / name
    first = contents(tmp_path / "one")
    assert sorted(first) == [f"{name}/card.json", f"{name}/test.npz", f"{name}/train.npz"]
    prepare(name, tmp_path / "one")
    prepare(name, tmp_path / "a/b")
    assert contents(tmp_path / "one") == contents(tmp_path / "a/b") == first


def test_the_card_says_what_it_is(prepared: Path) -> None:
    """Source, licence, sizes, class counts, and checksums of what lies beside it."""
    card = json.loads((prepared / "toy/card.json").read_text())
    assert [card[key] for key in ("name", "title", "source", "licence", "citation")] == [
        "toy", "Toy", "here", "CC0", "nobody",
    ]  # fmt: skip
    assert card["shape"] == [1, 2, 2]
    assert card["sizes"] == {"train": 6, "test": 3}
    assert card["class_counts"] == {"train": [2, 2, 2], "test": [1, 2, 0]}
    assert card["arrays_sha256"]["train"] == {"x": array_sha256(X), "y": array_sha256(Y)}
    assert array_sha256(X) == hashlib.sha256(b"|u1 (6, 1, 2, 2) " + bytes(range(0, 264, 11))).hexdigest()
    assert len({array_sha256(a) for a in (X, X[::-1], X.reshape(6, 4), X.astype(np.int8))}) == 4


def test_bytes_become_pixels_and_rows_keep_their_classes(prepared: Path) -> None:
    """float32 in [0, 1]; a smaller size is a stratified sample, the same each time."""
    splits = Prepared("toy")(prepared)
    assert torch.equal(splits.train.x, torch.from_numpy(X).float() / 255)
    assert splits.train.y.tolist() == Y.tolist()
    assert splits.card["name"] == splits.train.name == "toy"
    small = [Prepared("toy", train_size=3)(prepared) for _ in range(2)]
    assert sorted(small[0].train.y.tolist()) == [0, 1, 2]
    assert torch.equal(small[0].train.x, small[1].train.x)
    assert len(small[0].test) == 3


def test_a_failure_half_way_leaves_the_former_one(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both arrays were written when the class counts failed; no part is left either."""
    former = contents(prepared)
    offer(toy(X, Y - 1), monkeypatch)
    with pytest.raises(ValueError, match="negative"):
        prepare("toy", prepared)
    assert contents(prepared) == former
    assert os.listdir(prepared) == ["toy"]


class Deadly:
    """Classes that kill the process which wants to write them."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_kill_half_way_leaves_the_former_one(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves beside is hidden, and does not disturb the next run."""
    former = contents(prepared / "toy")
    offer(Raw({"train": (X, Y), "test": (X, Deadly())}, ("a", "b", "c")), monkeypatch)
    child = os.fork()
    if not child:
        try:
            prepare("toy", prepared)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert contents(prepared / "toy") == former
    offer(toy(X, Y), monkeypatch)
    prepare("toy", prepared)
    assert len(Prepared("toy")(prepared).test) == 6


def test_a_source_with_another_checksum_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The former one stays; a folder that was not there does not come."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/a.bin").write_bytes(b"other")
    monkeypatch.setenv("AISEC_MIRROR", str(tmp_path / "mirror"))
    entry = CatalogEntry("Toy", "here", "CC0", "nobody", {(File("a.bin", "00" * 32),): lambda files: toy(X, Y)})
    monkeypatch.setitem(CATALOG, "toy", entry)
    with pytest.raises(ValueError, match=f"a.bin: expected sha256 {'00' * 32}, found"):
        prepare("toy", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[60] ^= 255
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "no zip": lambda file: file.write_text("something else"),
    "cut short": cut,
    "a byte flipped": flip,
    "another array": lambda file: np.savez(file, x=X, y=Y[::-1]),
    "another type": lambda file: np.savez(file, x=X.astype(np.float32) / 255, y=Y),
    "no classes": lambda file: np.savez(file, x=X),
    "another split": lambda file: shutil.copy(file.with_name("test.npz"), file),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_arrays_that_do_not_fit_their_card_are_refused(damage: Callable[[Path], object], prepared: Path) -> None:
    """However they came to be damaged: one line with the mend."""
    damage(prepared / "toy/train.npz")
    with pytest.raises(ValueError, match=r"toy/train\.npz is not what its card says: run `aisec data toy` again") as e:
        Prepared("toy")(prepared)
    assert "\n" not in str(e.value)


def test_what_has_not_been_prepared_is_named(tmp_path: Path) -> None:
    """With the command that does it."""
    with pytest.raises(FileNotFoundError, match="digits: run `aisec data digits`"):
        Prepared("digits")(tmp_path)


@pytest.mark.parametrize("make", [prepare, Prepared], ids=["prepare", "Prepared"])
def test_an_unknown_name_is_refused_with_the_near_one(make: Callable[[str], object]) -> None:
    """And with all that there are."""
    with pytest.raises(ValueError, match=f"'digitz' .*did you mean 'digits'.*{', '.join(CATALOG)}"):
        make("digitz")
    with pytest.raises(ValueError, match="no dataset 'imagenet' in the catalog: there are"):
        make("imagenet")


@pytest.mark.parametrize("size", [0, -5])
def test_sizes_are_positive(size: int) -> None:
    """Of either split."""
    for sizes in ({"train_size": size}, {"test_size": size}):
        with pytest.raises(ValueError, match=f"must be positive, or null for all rows, got {size}"):
            Prepared("digits", **sizes)
