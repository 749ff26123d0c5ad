"""What we learn from: rows, their classes, and how to sample them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Dataset:
    """Rows and their classes.

    Args:
        x: inputs (N, *shape), float32 in [0, 1].
        y: classes (N,), int64 in 0..K-1.
        classes: the K names.
        name: as the catalog has it.
        features: the names of a table's columns; empty for images.

    Raises:
        ValueError: any other input; the message says how to fix it.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    name: str
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_inputs(self)
        y = self.y
        if y.dtype != torch.int64 or y.shape != (len(self.x),):
            raise ValueError(
                f"{self.name}: y must be int64 ({len(self.x)},), got {y.dtype} {tuple(y.shape)}: use .long(), or "
                "TargetDataset for targets that are no class"
            )
        if not (y.min() >= 0 and y.max() < len(self.classes)):
            raise ValueError(
                f"{self.name}: y must lie in 0..{len(self.classes) - 1} (there are {len(self.classes)} class names), "
                f"got {y.min()}..{y.max()}: number the classes from 0"
            )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    def subset(self, index: Tensor) -> "Dataset":
        """The rows that `index` names, in its order."""
        return replace(self, x=self.x[index], y=self.y[index])

    def sample(self, n: int | None, seed: int) -> "Dataset":
        """A stratified sample of rows, in their order here.

        Args:
            n: how many; all of them where it is None.
            seed: fixes the sample.

        Raises:
            ValueError: fewer than one row, or more than there are.
        """
        if n is None or n == len(self):
            return self
        if not 1 <= n < len(self):
            raise ValueError(
                f"{self.name} has {len(self)} rows, cannot take {n}: ask for 1 to {len(self)}, or null for all"
            )
        return self.subset(torch.from_numpy(stratified_sample(self.y.numpy(), n, seed)))

    def split(self, share: float, seed: int) -> tuple["Dataset", "Dataset"]:
        """Two stratified parts, each with its rows in their order here: one with `share` of the rows, and the others.

        Args:
            share: above 0 and below 1.
            seed: fixes the parts.

        Raises:
            ValueError: a share that leaves one of them without a row.
        """
        n = round(share * len(self))
        if not 1 <= n < len(self):
            raise ValueError(
                f"a share of {share} leaves a part of {self.name}'s {len(self)} rows empty: choose another"
            )
        rest, part = stratified_split(self.y.numpy(), n, seed)
        return self.subset(torch.from_numpy(part)), self.subset(torch.from_numpy(rest))


def check_inputs(rows: Dataset) -> None:
    """Refuse inputs that no model of the lab takes.

    Raises:
        ValueError: not float32 (N, *shape), no row, a number outside [0, 1], names for another number of columns.
    """
    name, x = rows.name, rows.x
    if x.dtype != torch.float32 or x.ndim < 2:
        raise ValueError(f"{name}: x must be float32 (N, *shape), got {x.dtype} {tuple(x.shape)}: use .float()")
    if not len(x):
        raise ValueError(f"{name}: a dataset has at least one row, got none")
    low, high = x.aminmax()
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise ValueError(f"{name}: x must lie in [0, 1], got [{low:g}, {high:g}]: scale it, and fill in NaN")
    if rows.features and len(rows.features) != x[0].numel():
        raise ValueError(f"{name}: {len(rows.features)} feature names for {x[0].numel()} columns: name each once")


def stratified_sample(y: np.ndarray, n: int, seed: int) -> np.ndarray:
    """A sample in which each class has its share of the rows, to within one row.

    Args:
        y: classes (N,).
        n: from 1 to N.
        seed: fixes the choice.

    Returns:
        Indices of n rows, int64 (n,), sorted.
    """
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(y, return_counts=True)
    share = counts * n / len(y)
    take = np.floor(share).astype(int)
    take[np.argsort(take - share, kind="stable")[: n - take.sum()]] += 1  # the largest remainders get what is left
    chosen = [rng.choice(np.flatnonzero(y == label), k, replace=False) for label, k in zip(classes, take, strict=True)]
    return np.sort(np.concatenate(chosen))


def stratified_split(y: np.ndarray, test_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and test, each class within one row of its share.

    Args:
        y: classes (N,).
        test_size: rows of the test split.
        seed: fixes the split.

    Returns:
        Indices of the training and of the test rows, both sorted.
    """
    test = stratified_sample(y, test_size, seed)
    return np.setdiff1d(np.arange(len(y)), test), test


@dataclass(frozen=True)
class Splits:
    """A prepared dataset: its splits, and the card that says what it is.

    Args:
        splits: from `train` and `test` to their rows.
        card: title, source, licence, citation, and the sha256 of each file.
    """

    splits: dict[str, Dataset]
    card: dict[str, Any]

    @property
    def train(self) -> Dataset:
        """The training split."""
        return self._split("train")

    @property
    def test(self) -> Dataset:
        """The test split."""
        return self._split("test")

    def _split(self, name: str) -> Dataset:
        if name not in self.splits:
            raise ValueError(
                f"{self.card['name']} has no {name} split here, only {sorted(self.splits)}: choose other data"
            )
        return self.splits[name]
