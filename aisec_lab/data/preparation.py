"""`data/NAME/`: the arrays of a dataset, and the card that says what they are."""

import difflib
import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from aisec_lab.core.files import write_json
from aisec_lab.data.catalog import CATALOG
from aisec_lab.data.dataset import Dataset, Splits
from aisec_lab.data.sources import DOWNLOADS, fetch

SAMPLE_SEED = 0  # of the rows that stay when a configuration asks for fewer


def check_name(name: str) -> None:
    """Refuse, with a ValueError that lists the near ones, a name that the catalog does not have."""
    if name not in CATALOG:
        near = difflib.get_close_matches(str(name), CATALOG, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no dataset {name!r} in the catalog: {hint}there are {', '.join(CATALOG)}")


def array_sha256(array: np.ndarray) -> str:
    """The sha256 of an array's type, shape and content; the file format does not matter."""
    header = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def prepare(name: str, root: str | os.PathLike[str] = "data") -> Path:
    """Bring a dataset of the catalog into `root/name`: `train.npz`, `test.npz` and `card.json`.

    Args:
        name: as the catalog has it.
        root: made if absent.

    Returns:
        The folder. It appears whole or not at all, with the same bytes each time.

    Raises:
        ValueError: an unknown name, or a checksum that does not match.
        FileNotFoundError: a source that can be had neither from the mirror nor from the network.
    """
    check_name(name)
    entry, root = CATALOG[name], Path(root)
    files, paths = fetch(tuple(entry.routes), root / DOWNLOADS)
    raw = entry.routes[files](paths)

    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{name}.", suffix=".part", dir=root) as part:
        place, beside, former = root / name, Path(part) / "beside", Path(part) / "former"
        beside.mkdir()
        sha256 = {}
        for split, (x, y) in raw.splits.items():
            np.savez_compressed(beside / f"{split}.npz", x=x, y=y)
            sha256[split] = {"x": array_sha256(x), "y": array_sha256(y)}
        card = {
            "name": name,
            "title": entry.title,
            "source": entry.source,
            "licence": entry.licence,
            "citation": entry.citation,
            "files": {file.path: file.sha256 for file in files},
            "shape": list(next(iter(raw.splits.values()))[0].shape[1:]),
            "classes": list(raw.classes),
            "features": list(raw.features),
            "sizes": {split: len(y) for split, (_, y) in raw.splits.items()},
            "class_counts": {
                split: np.bincount(y, minlength=len(raw.classes)).tolist() for split, (_, y) in raw.splits.items()
            },
            "arrays_sha256": sha256,
            "sha256": hashlib.sha256(json.dumps(sha256, sort_keys=True).encode()).hexdigest(),
        }
        write_json(beside / "card.json", card)
        if place.exists():
            place.rename(former)
        beside.rename(place)
    return place


def read_arrays(file: Path, expected: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """`x` and `y` of a prepared split; ValueError where they cannot be read or have another sha256 than `expected`."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
        fits = {"x": array_sha256(x), "y": array_sha256(y)} == expected
    except (OSError, EOFError, KeyError, ValueError, BadZipFile, zlib.error):  # missing, or damaged in one of many ways
        fits = False
    if not fits:
        raise ValueError(f"{file} is not what its card says: run `aisec data {file.parent.name}` again")
    return x, y


def read_prepared(
    name: str, root: str | os.PathLike[str]
) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The card of a prepared dataset, and the arrays `x` and `y` of each split; it raises the errors of `Prepared`."""
    folder = Path(root) / name
    if not (folder / "card.json").exists():
        raise FileNotFoundError(f"no dataset at {folder}: run `aisec data {name}`")
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return card, {
        split: read_arrays(folder / f"{split}.npz", expected) for split, expected in card["arrays_sha256"].items()
    }


@dataclass(frozen=True)
class Prepared:
    """A dataset that `aisec data NAME` has prepared, or a stratified sample of it.

    Args:
        name: of the dataset in the catalog.
        train_size: rows of the training split, at least 1; None for all of them.
        test_size: rows of the test split, at least 1; None for all of them.

    Args of the call:
        root: the folder above `name/`.

    Returns:
        The splits and the card.

    Raises:
        ValueError: an unknown name, a size that is not positive, or arrays that are not those of the card.
        FileNotFoundError: it has not been prepared.
    """

    name: str
    train_size: int | None = None
    test_size: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        for size in (self.train_size, self.test_size):
            if size is not None and size < 1:
                raise ValueError(f"data sizes must be positive, or null for all rows, got {size}")

    def __call__(self, root: str | os.PathLike[str] = "data") -> Splits:
        card, arrays = read_prepared(self.name, root)
        sizes = {"train": self.train_size, "test": self.test_size}
        splits = {}
        for split, (x, y) in arrays.items():
            if x.dtype.kind == "U":
                raise ValueError(f"{self.name} holds texts: configure aisec_lab.data.PreparedTexts")
            pixels = torch.from_numpy(x)
            pixels = pixels.float() / 255 if x.dtype == np.uint8 else pixels
            whole = Dataset(pixels, torch.from_numpy(y), tuple(card["classes"]), self.name, tuple(card["features"]))
            splits[split] = whole.sample(sizes[split], SAMPLE_SEED)
        return Splits(splits, card)
