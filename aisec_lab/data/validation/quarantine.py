"""Why a row is not accepted: a word of bits for each row, kept on disk."""

import os
from collections.abc import Iterator
from enum import IntFlag
from pathlib import Path

import numpy as np

BLOCK = 2**16  # rows
COLUMN = 16  # the bits above hold 1 + the number of the first column at fault


class Reason(IntFlag):
    """What speaks against a row."""

    MALFORMED = 1  # too many or too few cells
    UNREADABLE = 2  # a cell that is no number, or no text
    MISSING = 4
    OUT_OF_RANGE = 8
    UNKNOWN_WORD = 16
    UNKNOWN_LABEL = 32
    EXTREME = 64
    OUTLIER = 128
    DUPLICATE = 256
    NEAR_DUPLICATE = 512
    MISLABELLED = 1024


SAID = {
    Reason.MALFORMED: "malformed",
    Reason.UNREADABLE: "unreadable",
    Reason.MISSING: "missing",
    Reason.OUT_OF_RANGE: "out of range",
    Reason.UNKNOWN_WORD: "unknown word",
    Reason.UNKNOWN_LABEL: "unknown label",
    Reason.EXTREME: "extreme value",
    Reason.OUTLIER: "outlier",
    Reason.DUPLICATE: "duplicate of an earlier row",
    Reason.NEAR_DUPLICATE: "near-duplicate of an earlier row",
    Reason.MISLABELLED: "probably mislabelled",
}


def said(word: int, columns: tuple[str, ...]) -> str:
    """The reasons in a word, as a person reads them, with the first column at fault."""
    text = "; ".join(SAID[reason] for reason in Reason if word & reason)
    return f"{text} ({columns[(word >> COLUMN) - 1]})" if word >> COLUMN else text


class QuarantineLog:
    """A file with a word of bits for each row: the memory that it takes does not grow with the rows.

    Args:
        path: of the file; made anew.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self.rows = 0

    def append(self, words: np.ndarray) -> None:
        """The words (n,) of the rows that follow, uint32."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(words.astype(np.uint32).tobytes())
        self.rows += len(words)

    def add(self, rows: np.ndarray, reason: Reason) -> None:
        """One more reason against rows (n,), in any order."""
        rows = np.sort(rows)
        for start in sorted(set((rows // BLOCK).tolist())):
            first = start * BLOCK
            low, high = np.searchsorted(rows, [first, first + BLOCK])
            words = self.read(first, BLOCK)
            words[rows[low:high] - first] |= np.uint32(reason)
            self._file.seek(first * 4)
            self._file.write(words.tobytes())

    def read(self, start: int, rows: int) -> np.ndarray:
        """The words from a row on, uint32."""
        self._file.seek(start * 4)
        return np.frombuffer(bytearray(self._file.read(rows * 4)), np.uint32)

    def blocks(self) -> Iterator[np.ndarray]:
        """All words, some rows at a time."""
        for start in range(0, self.rows, BLOCK):
            yield self.read(start, BLOCK)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
