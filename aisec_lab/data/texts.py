"""Texts and their classes: what text models learn from."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aisec_lab.data.dataset import stratified_sample
from aisec_lab.data.preparation import SAMPLE_SEED, check_name, read_prepared


def as_strings(texts: Iterable[str]) -> tuple[str, ...]:
    """Strings as a tuple.

    Args:
        texts: a list, a tuple, an array, a column of a table, or a generator.

    Returns:
        The same strings in the same order.

    Raises:
        ValueError: one string, whose letters would pass for texts; a mapping; what is no collection; an entry that is
            no string, `None` and NaN of a table's gaps among them.
    """
    if isinstance(texts, str | bytes):
        raise ValueError(f"texts are a sequence of strings, got one {type(texts).__name__}: put it into a list")
    if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
        raise ValueError(f"texts are a sequence of strings, got a {type(texts).__name__}: pass a list of them")
    strings = tuple(texts)
    for row, text in enumerate(strings):
        if not isinstance(text, str):
            mend = "decode it" if isinstance(text, bytes) else "leave it out, or write it as a string"
            raise ValueError(f"each text is a string, text {row} is a {type(text).__name__}: {mend}")
    return strings


def as_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts to classify as a tuple.

    Args:
        texts: as `as_strings` takes them: at least one, each of at least one word.

    Returns:
        The same texts in the same order.

    Raises:
        ValueError: no text, a text without a word, or an error of `as_strings`.
    """
    strings = as_strings(texts)
    if not strings:
        raise ValueError("there must be at least one text, got none")
    for row, text in enumerate(strings):
        if not text or text.isspace():
            raise ValueError(f"each text has at least one word, text {row} has none: leave it out")
    return strings


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts and their classes.

    Args:
        texts: N strings, each with at least one word; words are what whitespace separates. Any collection that
            `as_texts` takes; a tuple is kept.
        y: classes (N,), int64 in 0..K-1.
        classes: the K names.
        name: as the catalog has it.

    Raises:
        ValueError: any other input; the message says how to fix it.
    """

    texts: tuple[str, ...]
    y: Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "texts", as_texts(self.texts))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        if not isinstance(self.y, Tensor):
            raise ValueError(f"{self.name}: y must be a tensor, got a {type(self.y).__name__}: use torch.tensor")
        if self.y.dtype != torch.int64 or self.y.shape != (len(self.texts),):
            raise ValueError(
                f"{self.name}: y must be int64 ({len(self.texts)},), got {self.y.dtype} {tuple(self.y.shape)}"
            )
        if not (self.y.min() >= 0 and self.y.max() < len(self.classes)):
            raise ValueError(
                f"{self.name}: y must lie in 0..{len(self.classes) - 1}, got {self.y.min()}..{self.y.max()}: "
                "number the classes from 0"
            )

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, index: Tensor) -> "Texts":
        """The rows that `index` (positions) names, in its order."""
        return Texts(tuple(self.texts[row] for row in index.tolist()), self.y[index], self.classes, self.name)

    def sample(self, n: int | None, seed: int) -> "Texts":
        """A stratified sample of n rows (None for all), in their order here; ValueError where there are fewer."""
        if n is None or n == len(self):
            return self
        if not 1 <= n < len(self):
            raise ValueError(
                f"{self.name} has {len(self)} texts, cannot take {n}: ask for 1 to {len(self)}, or null for all"
            )
        return self.subset(torch.from_numpy(stratified_sample(self.y.numpy(), n, seed)))


@dataclass(frozen=True)
class TextSplits:
    """A prepared set of texts.

    Args:
        train, test: its two splits.
        card: title, source, licence, citation, and the sha256 of each file.
    """

    train: Texts
    test: Texts
    card: dict[str, Any]


@dataclass(frozen=True)
class PreparedTexts:
    """Texts that `aisec data NAME` has prepared, or a stratified sample of them.

    Args:
        name: of the dataset in the catalog.
        train_size: rows of the training split, at least 1; None for all of them.
        test_size: rows of the test split, at least 1; None for all of them.

    Args of the call:
        root: the folder above `name/`.

    Returns:
        The splits and the card.

    Raises:
        ValueError: an unknown name, a size that is not positive, or arrays that are not those of the card or no texts.
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

    def __call__(self, root: str | os.PathLike[str] = "data") -> TextSplits:
        card, arrays = read_prepared(self.name, root)
        sizes = {"train": self.train_size, "test": self.test_size}
        splits = {}
        for split, (x, y) in arrays.items():
            if x.dtype.kind != "U":
                raise ValueError(f"{self.name} holds no texts: configure aisec_lab.data.Prepared")
            whole = Texts(tuple(x.tolist()), torch.from_numpy(y), tuple(card["classes"]), self.name)
            splits[split] = whole.sample(sizes[split], SAMPLE_SEED)
        return TextSplits(splits["train"], splits["test"], card)
