"""Rows of a Parquet table, or of one of separated values."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from aisec_lab.data.validation import cells
from aisec_lab.data.validation.delimited import Batch, Delimited
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
from aisec_lab.data.validation.seeming import LARGE, doubtful, seems


@dataclass(frozen=True)
class TableSource:
    """A Parquet file, or one of separated values as `Delimited` has it, whose column `label` holds the class."""

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
                    seem = seems(words)
                    what = f"these look like {seem}" if seem else "text is no category: leave it out"
                    raise RefusedError(f"column {name} holds over {MOST_WORDS} different words, {what}")
        found = {name: tuple(sorted(words, key=_by_number)) for name, words in seen.items()}
        classes = found.pop(self.label)
        if not classes:
            raise RefusedError(f"no rows with a {self.label}")
        return Layout(columns, found, self.label, classes, (len(columns),))

    def chunks(self, layout: Layout) -> Iterator[Chunk]:
        """Its rows by a layout; a column of words where it has numbers, or the other way round, is refused."""
        check_columns(tuple(self._schema.names), layout, self._changed(layout))
        for batch, rows, malformed in self._batches(layout.chunk_rows):
            x, unreadable = np.empty((len(batch), len(layout.columns)), order="F"), np.zeros(len(batch), bool)
            for place, name in enumerate(layout.columns):
                if name in layout.words:
                    words, bad = cells.texts(batch[name])
                    codes = cells.places(words, layout.words[name])
                    x[:, place] = np.where(codes == MISSING, np.nan, codes)
                else:
                    x[:, place], bad = cells.numbers(batch[name], self._comma)
                    if name in layout.whole:
                        bad = bad | (np.isfinite(x[:, place]) & (x[:, place] % 1 != 0))
                unreadable |= bad
            words, bad = cells.texts(batch[layout.label])
            y = cells.places(words, layout.classes)
            y[bad] = UNKNOWN
            yield Chunk(rows, x, y, unreadable | bad, batch, malformed)

    def remarks(self, layout: Layout) -> list[str]:
        """How its text is written, and which columns of words look like something else."""
        said = self._text.said if self._text else []
        seem = doubtful(layout).items()
        return said + [f"column {name} is read as words, which look like {kind}" for name, kind in seem]

    @cached_property
    def _text(self) -> Delimited | None:
        return None if self.path.suffix.lower() == ".parquet" else Delimited(self.path)

    @property
    def _comma(self) -> bool:
        return self._text is not None and self._text.decimal_comma

    def _changed(self, layout: Layout) -> dict[str, str]:
        """Columns that hold words where the layout has numbers, or the other way round, or too large numbers."""
        changed, (first, _, _) = {}, next(self._batches(1000), (None, None, None))
        for name in (name for name in layout.columns if name in self._schema.names):
            kind, numbers = self._schema.field(name).type, name not in layout.words
            given = None
            if self._text is None:
                if cells.is_number(kind) != numbers:
                    given = f"{'words' if numbers else 'numbers'} ({kind})"
                elif numbers and first is not None and 2 * cells.numbers(first[name])[1].sum() > len(first):
                    given = LARGE
            elif numbers:
                values, bad = cells.numbers(self._text.begin[name], self._comma)
                if bad.any() and (bad | np.isnan(values)).all():
                    words = [
                        cell.decode(errors="replace")
                        for cell in self._text.begin[name].filter(pa.array(bad)).to_pylist()
                    ]
                    seem = seems(words)
                    given = f"{words[0]!r} and the like" + (f", which look like {seem}" if seem else "")
            if given:
                changed[name] = f"holds {given}, where {'numbers' if numbers else 'words'} are accepted"
        return changed

    @cached_property
    def _schema(self) -> pa.Schema:
        if self._text:
            return self._text.begin.schema
        try:
            schema = parquet.read_schema(self.path)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise RefusedError(f"no Parquet file, or a damaged one ({error})") from error
        for field in schema:
            if not cells.is_number(field.type) and not cells.is_words(field.type):
                mend = "such as days since a day" if pa.types.is_temporal(field.type) else "or words"
                raise RefusedError(f"column {field.name} has type {field.type}: give numbers, {mend}")
        return schema

    def _is_number(self, schema: pa.Schema, name: str) -> bool:
        if not self._text:
            return cells.is_number(schema.field(name).type)
        values, bad = cells.numbers(self._text.begin[name], self._comma)
        return bool(2 * bad.sum() < len(bad) and not np.isnan(values).all())

    def _batches(self, size: int) -> Iterator[Batch]:
        if self._text:
            for batch, rows, malformed in self._text.batches():
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


def _by_number(word: str) -> tuple[bool, float, str]:
    """Order of words: numbers by their value, then the others by their letters."""
    try:
        return False, float(word), word
    except ValueError:
        return True, 0.0, word
