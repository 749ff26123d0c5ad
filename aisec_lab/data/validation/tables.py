"""Rows of a Parquet or CSV table."""

from collections.abc import Iterator
from csv import Error as HeaderError
from csv import reader
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from aisec_lab.data.validation import cells
from aisec_lab.data.validation.layout import (
    MISSING,
    MOST_WORDS,
    UNKNOWN,
    Chunk,
    Layout,
    RefusedError,
    check_columns,
    check_names,
)
from aisec_lab.data.validation.text_blocks import blocks

Batch = tuple[pa.RecordBatch, np.ndarray, tuple[tuple[int, str], ...]]  # rows, their numbers, and those that are none


@dataclass(frozen=True)
class Table:
    """A `.parquet` or `.csv` file whose column `label` holds the class; the first line of a CSV names the columns."""

    path: Path
    label: str = "label"

    def __post_init__(self) -> None:
        names = self._schema.names
        check_names(tuple(names))
        if self.label not in names:
            raise RefusedError(f"no column {self.label!r} among {names}: name the one with the class")
        if len(names) < 2:
            raise RefusedError("a table has the label's column and at least one more")

    def layout(self) -> Layout:
        """Numbers where the type says so, or, of a CSV, where at least half of the first cells are some."""
        schema = self._schema
        columns = tuple(name for name in schema.names if name != self.label)
        seen: dict[str, set[str]] = {
            name: set() for name in (*columns, self.label) if name == self.label or not self._is_number(schema, name)
        }
        for batch, _, _ in self._batches(100_000):
            for name, words in seen.items():
                words |= set(pc.unique(cells.texts(batch[name])[0]).drop_null().to_pylist())
                if len(words) > MOST_WORDS:
                    raise RefusedError(f"column {name} holds over {MOST_WORDS} different words: text, no category")
        found = {name: tuple(sorted(words, key=_by_number)) for name, words in seen.items()}
        classes = found.pop(self.label)
        if not classes:
            raise RefusedError(f"no rows with a {self.label}")
        return Layout(columns, found, self.label, classes, (len(columns),))

    def chunks(self, layout: Layout) -> Iterator[Chunk]:
        """Its rows by a layout; a column of words where it has numbers, or the other way round, is refused."""
        schema = self._schema
        check_columns(tuple(schema.names), layout)
        for name in layout.columns:
            kind = schema.field(name).type
            if self.path.suffix == ".parquet" and cells.is_number(kind) == (name in layout.words):
                raise RefusedError(
                    f"column {name} has type {kind}, in the accepted version "
                    f"{'words' if name in layout.words else 'numbers'}: convert it"
                )
        for batch, rows, malformed in self._batches(layout.chunk_rows):
            x, unreadable = np.empty((len(batch), len(layout.columns)), order="F"), np.zeros(len(batch), bool)
            for place, name in enumerate(layout.columns):
                if name in layout.words:
                    words, bad = cells.texts(batch[name])
                    codes = cells.places(words, layout.words[name])
                    x[:, place] = np.where(codes == MISSING, np.nan, codes)
                else:
                    x[:, place], bad = cells.numbers(batch[name])
                unreadable |= bad
            words, bad = cells.texts(batch[layout.label])
            y = cells.places(words, layout.classes)
            y[bad] = UNKNOWN
            yield Chunk(rows, x, y, unreadable | bad, batch, malformed)

    @cached_property
    def _begin(self) -> pa.RecordBatch:
        """The first rows of a CSV, of the first block that has some."""
        batches = (batch for batch, _, _ in self._csv())
        first = next(batches, None)
        if first is None:
            raise RefusedError("no rows: the file is empty")
        return next((batch for batch in chain([first], batches) if len(batch)), first)[:1000]

    @cached_property
    def _schema(self) -> pa.Schema:
        if self.path.suffix == ".csv":
            return self._begin.schema
        try:
            schema = parquet.read_schema(self.path)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise RefusedError(f"no Parquet file, or a damaged one ({error})") from error
        for field in schema:
            if not cells.is_number(field.type) and not cells.is_words(field.type):
                raise RefusedError(f"column {field.name} has type {field.type}: numbers and words are accepted")
        return schema

    def _is_number(self, schema: pa.Schema, name: str) -> bool:
        if self.path.suffix == ".parquet":
            return cells.is_number(schema.field(name).type)
        values, bad = cells.numbers(self._begin[name])
        return bool(2 * bad.sum() < len(bad) and not np.isnan(values).all())

    def _batches(self, size: int) -> Iterator[Batch]:
        if self.path.suffix == ".csv":
            for batch, rows, malformed in self._csv():
                borders = [-1, *rows[size::size].tolist(), np.inf]  # a row that is none goes where it stands
                for place, start in enumerate(range(0, max(1, len(batch)), size)):
                    part, (low, high) = slice(start, start + size), borders[place : place + 2]
                    yield batch[part], rows[part], tuple(one for one in malformed if low <= one[0] < high)
            return
        start = 0
        try:
            # pre_buffer, the default, would keep in memory all that was read
            with parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
                for batch in file.iter_batches(size):
                    yield batch, np.arange(start, start + len(batch)), ()
                    start += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise RefusedError(f"damaged after row {start} ({error})") from error

    def _csv(self) -> Iterator[Batch]:
        """Cells as bytes: what cannot be read is a matter of a row, not of the file."""
        names: list[str] | None = None
        start = 0
        try:
            for block in blocks(self.path):
                wrong: list[tuple[int, str]] = []

                def keep(row: csv.InvalidRow, wrong: list[tuple[int, str]] = wrong) -> str:
                    wrong.append((row.number, row.text))
                    return "skip"

                if names is None:
                    line, _, block = block.partition(b"\n")
                    header = reader([line.decode("utf-8-sig").strip()], skipinitialspace=True)
                    names = [name.strip() for name in next(header, [""])] or [""]
                if not block:
                    continue
                table = csv.read_csv(
                    pa.BufferReader(block),
                    csv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
                    csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep),
                    csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False),
                ).combine_chunks()
                numbers = np.delete(np.arange(table.num_rows + len(wrong)), [row for row, _ in _from_zero(wrong)])
                malformed = tuple((start + row, text) for row, text in _from_zero(wrong))
                end = table.num_rows + len(wrong)
                if block.count(b'"') % 2 and _is_broken(table, wrong, end):
                    raise RefusedError(f"row {start + end - 1}: a quotation mark was not closed")
                batch = table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], table.schema)
                yield batch, start + numbers, malformed
                start += end
        except RefusedError:
            raise
        except (pa.ArrowException, HeaderError, ValueError) as error:
            raise RefusedError(f"no CSV, or a damaged one, after row {start} ({error})") from error


def _from_zero(wrong: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """pyarrow counts the rows of a block from 1."""
    return [(number - 1, text) for number, text in wrong]


def _is_broken(table: pa.Table, wrong: list[tuple[int, str]], rows: int) -> bool:
    """Whether a line break stands in the last row of a block, with more behind it."""
    if wrong and wrong[-1][0] == rows:
        return "\n" in wrong[-1][1].rstrip()
    return any(b"\n" in (column[-1].as_py() or b"").rstrip() for column in table.columns)


def _by_number(word: str) -> tuple[bool, float, str]:
    """Order of words: numbers by their value, then the others by their letters."""
    try:
        return False, float(word), word
    except ValueError:
        return True, 0.0, word
