"""Readers of files, in the formats of their publishers, into arrays."""

import csv
import gzip
import hashlib
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aisec_lab.data.dataset import stratified_split

Arrays = tuple[np.ndarray, np.ndarray]
SPLIT_SEED = 0  # of sets that come without a test split


@dataclass(frozen=True)
class Raw:
    """Arrays of each split (uint8 pixels or float32 in [0, 1], classes), class names, and column names of a table."""

    splits: dict[str, Arrays]
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()


def digits(files: Sequence[Path]) -> Raw:
    """The 8x8 digits that ship inside scikit-learn: 17 grey levels, 500 of 1,797 for the test."""
    from sklearn.datasets import load_digits  # two seconds that nothing else should pay

    bunch = load_digits()
    x, y = (bunch.images / 16).astype(np.float32)[:, None], bunch.target.astype(np.int64)
    train, test = stratified_split(y, 500, SPLIT_SEED)
    return Raw({"train": (x[train], y[train]), "test": (x[test], y[test])}, tuple("0123456789"))


def breast_cancer(files: Sequence[Path]) -> Raw:
    """The table that ships inside scikit-learn: 30 columns, 169 of 569 rows for the test."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    y = bunch.target.astype(np.int64)
    train, test = stratified_split(y, 169, SPLIT_SEED)
    scaled = _scaled(bunch.data[train], bunch.data[test])
    names = tuple(map(str, bunch.feature_names))
    return Raw(
        {"train": (scaled[0], y[train]), "test": (scaled[1], y[test])}, tuple(map(str, bunch.target_names)), names
    )


def npz_images(files: Sequence[Path], classes: tuple[str, ...]) -> Raw:
    """`x_train`, `y_train`, `x_test`, `y_test` of `.npz` files; images (N, H, W) or (N, H, W, C), uint8."""
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        with np.load(file, allow_pickle=False) as members:
            arrays |= {name: members[name] for name in members.files}
    splits = {
        split: (_channels_first(arrays[f"x_{split}"]), arrays[f"y_{split}"].astype(np.int64))
        for split in ("train", "test")
        if f"x_{split}" in arrays
    }
    return Raw(splits, classes)


def idx_images(files: Sequence[Path], classes: tuple[str, ...]) -> Raw:
    """Gzipped IDX: training images, training labels, test images, test labels, in this order."""
    train_x, train_y, test_x, test_y = (_idx(file) for file in files)
    splits = {
        "train": (train_x[:, None], train_y.astype(np.int64)),
        "test": (test_x[:, None], test_y.astype(np.int64)),
    }
    return Raw(splits, classes)


def cifar_binary(files: Sequence[Path], classes: tuple[str, ...]) -> Raw:
    """The binary archive of CIFAR-10: records of one label byte and 3,072 pixels, channel by channel."""
    batches: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    with tarfile.open(files[0]) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            content = archive.extractfile(member)
            if member.name.endswith(".bin") and content is not None:
                split = "test" if "test" in member.name else "train"
                batches[split].append(np.frombuffer(content.read(), np.uint8).reshape(-1, 3073))
    records = {split: np.concatenate(parts) for split, parts in batches.items()}
    return by_content(
        Raw({s: (r[:, 1:].reshape(-1, 3, 32, 32), r[:, 0].astype(np.int64)) for s, r in records.items()}, classes)
    )


def by_content(raw: Raw) -> Raw:
    """The same rows, sorted by the sha256 of their images: for sources that do not keep the publisher's order."""
    splits = {}
    for split, (x, y) in raw.splits.items():
        keys = [(hashlib.sha256(image.tobytes()).digest(), label) for image, label in zip(x, y, strict=True)]
        order = sorted(range(len(x)), key=keys.__getitem__)  # by class if an image occurs twice
        splits[split] = (x[order], y[order])
    return Raw(splits, raw.classes, raw.features)


def adult(files: Sequence[Path]) -> Raw:
    """UCI Adult: numbers scaled by the training range, words one-hot, with "?" (unknown) as a word too."""
    train, test = (_cells(file, len(ADULT_COLUMNS) + 1) for file in files)
    x, names = _encoded(train, test, ADULT_COLUMNS, ADULT_NUMBERS)
    y = [np.array([row[-1].startswith(">") for row in split], np.int64) for split in (train, test)]
    return Raw({"train": (x[0], y[0]), "test": (x[1], y[1])}, ("<=50K", ">50K"), names)


def heart(files: Sequence[Path]) -> Raw:
    """UCI heart disease, Cleveland, encoded as Adult: 103 of 303 rows for the test; diseased is any `num` above 0."""
    rows = np.array(_cells(files[0], len(HEART_COLUMNS) + 1))
    y = (rows[:, -1] != "0").astype(np.int64)
    train, test = stratified_split(y, 103, SPLIT_SEED)
    x, names = _encoded(rows[train].tolist(), rows[test].tolist(), HEART_COLUMNS, HEART_NUMBERS)
    return Raw({"train": (x[0], y[train]), "test": (x[1], y[test])}, ("healthy", "diseased"), names)


def location(files: Sequence[Path]) -> Raw:
    """The archive of Location-30: lines of a class from "1" up and 446 zeros and ones; 1,000 of 5,010 for the test."""
    with tarfile.open(files[0]) as archive:
        member = archive.extractfile("bangkok")
        assert member is not None
        lines = member.read().decode().replace('"', "").splitlines()
    cells = np.array([line.split(",") for line in lines], dtype=np.int64)
    x, y = cells[:, 1:].astype(np.float32), cells[:, 0] - 1
    train, test = stratified_split(y, 1000, SPLIT_SEED)
    names = tuple(f"place {number}" for number in range(1, x.shape[1] + 1))
    classes = tuple(f"cluster {number}" for number in range(1, int(y.max()) + 2))
    return Raw({"train": (x[train], y[train]), "test": (x[test], y[test])}, classes, names)


ADULT_COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship",
    "race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country",
)  # fmt: skip
ADULT_NUMBERS = {"age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"}
HEART_COLUMNS = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal",
)  # fmt: skip
HEART_NUMBERS = {"age", "trestbps", "chol", "thalach", "oldpeak"}


def _cells(file: Path, columns: int) -> list[list[str]]:
    with file.open(newline="") as lines:
        return [row for row in csv.reader(lines, skipinitialspace=True) if len(row) == columns]


def _encoded(
    train: list[list[str]], test: list[list[str]], columns: Sequence[str], numbers: set[str]
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Rows of words as one array a split, and the names of its columns: NAME of a number, NAME=WORD of a word."""
    parts: list[Arrays] = []
    names: list[str] = []
    for place, name in enumerate(columns):
        first, second = (np.array([row[place] for row in split]) for split in (train, test))
        if name in numbers:
            parts.append(_scaled(first.astype(float)[:, None], second.astype(float)[:, None]))
            names.append(name)
        else:
            words = sorted(set(first.tolist()))
            parts.append(((first[:, None] == words).astype(np.float32), (second[:, None] == words).astype(np.float32)))
            names += [f"{name}={word}" for word in words]
    return [np.concatenate(split, axis=1) for split in zip(*parts, strict=True)], tuple(names)


def _scaled(train: np.ndarray, test: np.ndarray) -> Arrays:
    """Each column to [0, 1] by its range in the training split; the test split is clipped to that."""
    low, high = train.min(0), train.max(0)
    spread = np.where(high > low, high - low, 1)
    first, second = (np.clip((part - low) / spread, 0, 1).astype(np.float32) for part in (train, test))
    return first, second


def _channels_first(images: np.ndarray) -> np.ndarray:
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _idx(file: Path) -> np.ndarray:
    content = gzip.decompress(file.read_bytes())
    shape = np.frombuffer(content, ">u4", content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
