"""Numbers from the cells of a table, which may have any content."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aisec_lab.data.validation.layout import MISSING, UNKNOWN

EMPTY = pa.array([b"", b"NA", b"nan", b"NaN", b"null", b"NULL"], pa.binary())  # how text says: no number

EXACT = 2**53  # from here on float64 leaves out whole numbers


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def is_words(kind: pa.DataType) -> bool:
    """Whether a column of this type holds words."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)


def numbers(cells: pa.Array, decimal_comma: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n,), float64, NaN for an empty cell, and which cells are neither empty nor a number, (n,), bool.

    A whole number that float64 need not hold exactly is something else: two of them could become one. With a decimal
    comma so is a number with a point, which may stand between thousands.
    """
    if is_number(cells.type):
        values = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return values, (np.abs(values) >= EXACT) & pa.types.is_integer(cells.type)
    cells = _without(cells, EMPTY)
    missing = cells.is_null().to_numpy(zero_copy_only=False)
    points = np.zeros(len(cells), bool)
    if decimal_comma:
        points = pc.match_substring(cells, ".").fill_null(False).to_numpy(zero_copy_only=False)
        cells = pc.replace_substring(cells, ",", ".")
    try:
        values = cells.cast(pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)
        bad = np.zeros(len(cells), bool)
    except pa.ArrowInvalid:  # one of them is no number: look at each
        values = np.array([_number(cell) for cell in cells.to_pylist()], np.float64)
        bad = np.isnan(values) & ~missing
    large = np.flatnonzero(np.abs(values) >= EXACT)
    bad[large] = [cell.strip().lstrip(b"+-").isdigit() for cell in cells.take(pa.array(large)).to_pylist()]
    return np.where(points, np.nan, values), bad | points


def texts(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Words, null for an empty cell, and which cells are not valid UTF-8, (n,), bool."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if is_number(cells.type):
        try:
            return cells.cast(pa.int64()).cast(pa.string()), np.zeros(len(cells), bool)
        except pa.ArrowInvalid:
            return pa.array(map(_word, cells.to_pylist()), pa.string()), np.zeros(len(cells), bool)
    cells = _without(cells, EMPTY[:1])
    try:
        return cells.cast(pa.string()), np.zeros(len(cells), bool)
    except pa.ArrowInvalid:
        words = [None if cell is None else _text(cell) for cell in cells.to_pylist()]
        unreadable = np.array([word is None for word in words]) & cells.is_valid().to_numpy(zero_copy_only=False)
        return pa.array(words, pa.string()), unreadable


def places(words: pa.Array, known: tuple[str, ...]) -> np.ndarray:
    """Place of each word among those that are known (n,), int64; UNKNOWN, or MISSING for a null."""
    found = pc.index_in(words, value_set=pa.array(known, pa.string())).fill_null(UNKNOWN).to_numpy(zero_copy_only=False)
    return np.where(words.is_null().to_numpy(zero_copy_only=False), MISSING, found).astype(np.int64)


def _without(cells: pa.Array, empty: pa.Array) -> pa.Array:
    """The cells as bytes, null where they are one of those that say nothing."""
    cells = cells.cast(pa.binary())
    return pc.if_else(pc.is_in(cells, value_set=empty), pa.scalar(None, pa.binary()), cells)


def _number(cell: bytes | None) -> float:
    try:
        return float(cell) if cell is not None and b"_" not in cell else np.nan
    except ValueError:
        return np.nan


def _word(number: float | None) -> str | None:
    """Distinct texts for distinct numbers; a whole number is written as an integer, whatever its type."""
    if number is None or number != number:
        return None
    return str(int(number)) if isinstance(number, int) or number.is_integer() else repr(number)


def _text(cell: bytes) -> str | None:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return None
