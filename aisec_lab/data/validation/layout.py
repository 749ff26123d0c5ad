"""What the rows of a dataset are made of, and how they come: in chunks, as numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

CELLS = 5_000_000  # of a chunk: the memory that an ingestion takes is some copies of this many numbers
MOST_WORDS = 1000  # different ones in a column; more is free text
UNKNOWN, MISSING = -1, -2  # a label that the accepted version does not have, and none


class RefusedError(ValueError):
    """Of this file no single row can be judged."""


@dataclass(frozen=True)
class Layout:
    """The columns of a row.

    Args:
        columns: their names, without the label's.
        words: for each column of words those that it may hold; a column that is not here holds numbers.
        label: name of the column with the class.
        classes: the K names.
        shape: of one input.
        images: whether the columns are pixels, of which none has a name or a rule of its own.
    """

    columns: tuple[str, ...]
    words: dict[str, tuple[str, ...]]
    label: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    images: bool = False

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk."""
        return max(1, CELLS // max(1, len(self.columns)))


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some rows of a file.

    Args:
        rows: their numbers in the file (n,), int64, from 0, increasing.
        x: (n, D), float64; a word is its place in the layout, UNKNOWN where it has none; NaN where nothing can be read.
        y: classes (n,), int64; UNKNOWN or MISSING where there is none.
        unreadable: (n,), bool: a cell is there but is no number, or no text.
        content: the same rows as the file has them.
        malformed: number and text of rows that have too many or too few cells: they are in none of the above.
    """

    rows: np.ndarray
    x: np.ndarray
    y: np.ndarray
    unreadable: np.ndarray
    content: pa.RecordBatch
    malformed: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


class Source(Protocol):
    """A file with rows. Opening it raises `RefusedError` where no row of it could ever be judged."""

    def layout(self) -> Layout:
        """What its rows are made of, by itself; reads it once."""
        ...

    def chunks(self, layout: Layout) -> Iterator[Chunk]:
        """Its rows in order, read by a layout; `RefusedError` where they do not have it."""
        ...


def check_names(found: tuple[str, ...]) -> None:
    """Refuse columns that nobody has named, or that have one name."""
    if index := [name for name in found if name in ("", "__index_level_0__")]:
        raise RefusedError(f"column {index[0]!r} is an index that was written along: leave it out (`index=False`)")
    if repeated := sorted({name for name in found if found.count(name) > 1}):
        raise RefusedError(f"columns {repeated} are there twice: name each once")


def check_columns(found: tuple[str, ...], layout: Layout) -> None:
    """Refuse other columns than the layout's and its label; their order is free."""
    expected = (*layout.columns, layout.label)
    absent, more = ([name for name in one if name not in two] for one, two in ((expected, found), (found, expected)))
    if absent or more:
        raise RefusedError(f"columns {absent} are missing and {more} are new: give the accepted ones")


def comparable(layout: Layout, x: np.ndarray) -> np.ndarray:
    """Rows (N, D) as (N, F), between which distances mean something.

    Pixels stay as they are; numbers of a table get mean 0 and standard deviation 1; words are coded one-hot, two of
    them 1 apart.
    """
    if layout.images:
        return x
    parts = []
    for place, name in enumerate(layout.columns):
        column = x[:, place]
        if name in layout.words:
            parts.append((column[:, None] == np.arange(len(layout.words[name]))) / np.sqrt(2))
        else:
            parts.append(((column - column.mean()) / (column.std() or 1))[:, None])
    return np.concatenate(parts, axis=1)
