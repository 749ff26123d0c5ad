"""The columns of a dataset, and its rows: read in chunks, as numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Protocol

import numpy as np
import pyarrow as pa

CELLS = 5_000_000  # of a chunk: the memory that an ingestion takes is some copies of this many numbers
MOST_WORDS = 1000  # different ones in a column; more is free text
SAID = 20  # columns that an error names
UNKNOWN, MISSING = -1, -2  # a label that the accepted version does not have, and none


class RefusedError(ValueError):
    """A file of which no row can be checked, so that it is refused as a whole."""


@dataclass(frozen=True)
class Layout:
    """The columns of a row.

    Args:
        columns: their names, without the label's.
        words: the words that each column of words may hold; a column without an entry holds numbers.
        label: name of the column with the class.
        classes: the K names.
        shape: of one input.
        images: whether the columns are pixels, which have no names and no rules of their own.
        limits: lowest and highest value that a data dictionary allows in a column of numbers.
        nullable: columns whose cells may be empty.
        whole: columns whose numbers are whole.
        units: of columns of numbers; only for people to read.
    """

    columns: tuple[str, ...]
    words: dict[str, tuple[str, ...]]
    label: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    images: bool = False
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    nullable: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    units: dict[str, str] = field(default_factory=dict)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk."""
        return max(1, CELLS // max(1, len(self.columns)))


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some rows of a file.

    Args:
        rows: their numbers in the file (n,), int64, from 0, increasing.
        x: (n, D), float64. A word is its position in the layout, or UNKNOWN; a cell that cannot be read is NaN.
        y: classes (n,), int64; UNKNOWN or MISSING for a row without a class.
        unreadable: (n,), bool: whether a cell of the row is not empty but no number, or no text.
        content: the same rows as they stand in the file.
        malformed: number and text of rows with too many or too few cells; no other field has these rows.
    """

    rows: np.ndarray
    x: np.ndarray
    y: np.ndarray
    unreadable: np.ndarray
    content: pa.RecordBatch
    malformed: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


class DataSource(Protocol):
    """A file with rows. Opening it raises `RefusedError` if no row of it can be checked."""

    def layout(self) -> Layout:
        """The columns that the file itself shows; reads it once."""
        ...

    def chunks(self, layout: Layout) -> Iterator[Chunk]:
        """Its rows in order, read by a layout; `RefusedError` if they have another one."""
        ...

    def remarks(self, layout: Layout) -> list[str]:
        """How the file was read, for each choice that a reader may not expect."""
        ...


def check_names(found: tuple[str, ...]) -> None:
    """Refuse columns without a name, or with the name of another column."""
    if index := [name for name in found if name in ("", "__index_level_0__")]:
        raise RefusedError(f"column {index[0]!r} is an index that was written along: leave it out (`index=False`)")
    if repeated := sorted({name for name in found if found.count(name) > 1}):
        raise RefusedError(f"columns {repeated} are there twice: name each once")


def check_columns(found: tuple[str, ...], layout: Layout, changed: dict[str, str]) -> None:
    """Refuse a file whose columns are not those of the layout, in any order; the error names each difference.

    Args:
        found: names of the columns, with the label's.
        layout: what they should be.
        changed: for columns that are in the layout, how the file's column differs.
    """
    expected = (*layout.columns, layout.label)
    absent, more = ([name for name in one if name not in two] for one, two in ((expected, found), (found, expected)))
    says = []
    for name in absent:
        alike = [new for new in more if _plain(new) == _plain(name)] or get_close_matches(name, more, 1, 0.8)
        says.append(f"{name!r} is missing" + (f" ({alike[0]!r} is new: rename it?)" if alike else ""))
    says += [f"{name!r} is new" for name in more]
    says += [f"{name!r} {change}" for name, change in changed.items()]
    if says:
        raise RefusedError(
            f"not the accepted columns: {'; '.join(says[:SAID])}{'; …' * (len(says) > SAID)}: mend the file, or ingest "
            "another schema under another name"
        )


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def comparable(layout: Layout, x: np.ndarray) -> np.ndarray:
    """Rows (N, D) in units in which distances between them can be compared, (N, F).

    Pixels stay as they are; numbers of a table get mean 0 and standard deviation 1; words are coded one-hot, two of
    them 1 apart. An empty cell, if the column allows it, becomes the mean.
    """
    if layout.images:
        return x
    parts = []
    for place, name in enumerate(layout.columns):
        column = x[:, place]
        if name in layout.words:
            parts.append((column[:, None] == np.arange(len(layout.words[name]))) / np.sqrt(2))
        else:
            mean, spread = (np.nanmean(column), np.nanstd(column)) if np.isfinite(column).any() else (0.0, 1.0)
            parts.append(np.nan_to_num((column - mean) / (spread or 1))[:, None])  # an empty cell is as the mean
    return np.concatenate(parts, axis=1)
