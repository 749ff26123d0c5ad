"""Rows of a text file of separated values: what separates them, and which of them are none."""

import re
import zlib
from collections.abc import Iterator
from csv import Error as HeaderError
from csv import reader
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from aisec_lab.data.validation.layout import RefusedError
from aisec_lab.data.validation.text_blocks import blocks

Batch = tuple[pa.RecordBatch, np.ndarray, tuple[tuple[int, str], ...]]  # rows, their numbers, and those that are none

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
COMMA = re.compile(rb"\s*[+-]?\d+,\d+([eE][+-]?\d+)?\s*")  # a number with a decimal comma, if it is one
THOUSANDS = re.compile(rb"\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*")  # or one with its thousands apart
POINT = re.compile(rb"\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*")


@dataclass(frozen=True)
class Delimited:
    """A text file, packed by gzip or not, whose first line names the columns.

    Cells are separated by commas, semicolons or tabs: by what makes the most names of the first line. Numbers may have
    a decimal comma where cells are not separated by commas, and where more numbers of the first rows have one than a
    point.
    """

    path: Path

    @cached_property
    def separator(self) -> str:
        """Between two cells."""
        line = next(blocks(self.path), b"").partition(b"\n")[0].decode("utf-8-sig", "replace").strip("\r\n ")
        return max(SEPARATORS, key=lambda separator: len(next(reader([line], delimiter=separator), [])))

    @cached_property
    def begin(self) -> pa.RecordBatch:
        """The first rows, of the first block that has some."""
        batches = (batch for batch, _, _ in self.batches())
        first = next(batches, None)
        if first is None:
            raise RefusedError("no rows: the file is empty")
        return next((batch for batch in chain([first], batches) if len(batch)), first)[:1000]

    @cached_property
    def decimal_comma(self) -> bool:
        """Whether numbers have one."""
        if self.separator == ",":
            return False
        cells = [cell for column in self.begin.columns for cell in column.to_pylist() if cell]
        commas = [cell for cell in cells if COMMA.fullmatch(cell)]
        points = sum(bool(POINT.fullmatch(cell)) for cell in cells)
        return len(commas) > points and not all(THOUSANDS.fullmatch(cell) for cell in commas)

    @property
    def said(self) -> list[str]:
        """What of its writing is not as in most files."""
        words = [] if self.separator == "," else [f"cells are separated by {SEPARATORS[self.separator]}"]
        return words + ["numbers have decimal commas"] * self.decimal_comma

    def batches(self) -> Iterator[Batch]:
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
                    text = line.decode("utf-8-sig").strip("\r\n ")
                    header = reader([text], delimiter=self.separator, skipinitialspace=True)
                    names = [name.strip() for name in next(header, [""])] or [""]
                if not block:
                    continue
                table = csv.read_csv(
                    pa.BufferReader(block),
                    csv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
                    csv.ParseOptions(delimiter=self.separator, newlines_in_values=True, invalid_row_handler=keep),
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
        except (EOFError, zlib.error, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise RefusedError(f"damaged gzip, after row {start} ({error}): send it again") from error


def _from_zero(wrong: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """pyarrow counts the rows of a block from 1."""
    return [(number - 1, text) for number, text in wrong]


def _is_broken(table: pa.Table, wrong: list[tuple[int, str]], rows: int) -> bool:
    """Whether a line break stands in the last row of a block, with more behind it."""
    if wrong and wrong[-1][0] == rows:
        return "\n" in wrong[-1][1].rstrip()
    return any(b"\n" in (column[-1].as_py() or b"").rstrip() for column in table.columns)
