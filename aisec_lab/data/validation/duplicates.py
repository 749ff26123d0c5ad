"""Rows that are there already: exactly, in a file of any size, or nearly, in memory."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PARTS = 256  # files: in memory are the hashes of one of them
LANES = 4  # of 32 bits
PIECE = 2**18  # rows of a part that are looked at together
BLOCK = 1000  # rows that are compared with all others at once


class DuplicateIndex:
    """Finds rows that repeat an earlier one, on disk: memory is that of a 256th of the hashes.

    Two rows are called equal where 128 bits of a strongly universal hash are (Multilinear: Lemire & Kaser, 2014,
    arXiv:1202.4961). Its keys are drawn anew each time: for any rows, also those made by somebody who knows this
    code, two different ones meet with a chance of 2**-128.

    Args:
        folder: where the parts lie; it exists.
        width: columns of a row, without its label.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self._files = [folder / f"hashes.{part}" for part in range(PARTS)]
        words = 2 * (width + 1)  # of 32 bits
        drawn = np.frombuffer(secrets.token_bytes(8 * (words + 1) * LANES), np.uint64).reshape(words + 1, LANES)
        self._keys, self._offset = drawn[:-1], drawn[-1]

    def add(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray, which: np.ndarray) -> None:
        """Rows (n, D) with labels (n,) and numbers (n,), as far as `which` (n,) has them."""
        rows = rows[which]
        lanes = np.tile(self._offset[:, None], len(rows))
        for place, column in enumerate((*x.T, y)):
            cells = (column[which].astype(np.float64) + 0.0).view(np.uint64)  # -0 is 0
            low, high = cells & np.uint64(2**32 - 1), cells >> np.uint64(32)
            for lane, hashed in enumerate(lanes):
                hashed += low * self._keys[2 * place, lane]
                hashed += high * self._keys[2 * place + 1, lane]
        hashes = lanes.T
        hashes = hashes >> np.uint64(32)
        part = (hashes[:, 0] % PARTS).astype(np.int64)
        records = np.empty((len(rows), 3), np.uint64)
        records[:, :2] = hashes[:, ::2] << np.uint64(32) | hashes[:, 1::2]
        records[:, 2] = rows
        order = np.argsort(part, kind="stable")
        borders = np.searchsorted(part[order], np.arange(1, PARTS))
        for path, piece in zip(self._files, np.split(records[order], borders), strict=True):
            if len(piece):
                with path.open("ab") as file:
                    file.write(piece.tobytes())

    def found(self) -> Iterator[np.ndarray]:
        """Numbers of rows that repeat an earlier one, a part at a time."""
        for path in filter(Path.exists, self._files):
            seen = np.empty((0, 3), np.uint64)
            with path.open("rb") as file:
                while piece := file.read(24 * PIECE):  # one row many times over would fill a part
                    records = np.concatenate([seen, np.frombuffer(piece, np.uint64).reshape(-1, 3)])
                    records = records[np.lexsort(records.T[::-1])]
                    again = np.r_[False, (records[1:, :2] == records[:-1, :2]).all(1)]
                    yield records[again, 2].astype(np.int64)
                    seen = records[~again]
            path.unlink()


def near_repeats(x: np.ndarray, share: float) -> np.ndarray:
    """Which rows are close to an earlier one, (N,), bool.

    Args:
        x: rows (N, D).
        share: of the usual distance from a row to its nearest neighbour (the median), up to which two are close. In
            data of d intrinsic dimensions some share**d of honest rows are that close.
    """
    z = (x - x.mean(0)).astype(np.float32)
    square = np.square(z).sum(1)
    usual = _usual_gap(z, square)
    near = np.zeros(len(x), bool)
    for start in range(0, len(z), BLOCK):
        block, end = z[start : start + BLOCK], start + BLOCK
        gaps = square[start:end, None] + square[None, :end] - 2 * block @ z[:end].T
        rough = share**2 * usual + 1e-5 * (square[start:end, None] + square[None, :end])  # float32 may be off by that
        ones, others = np.nonzero(gaps <= rough)
        ones, others = (ones + start)[others < ones + start], others[others < ones + start]
        for piece in range(0, len(ones), 100 * BLOCK):
            a, b = ones[piece : piece + 100 * BLOCK], others[piece : piece + 100 * BLOCK]
            near[a[np.square(x[a] - x[b]).sum(1) <= share**2 * usual]] = True
    return near


def _usual_gap(z: np.ndarray, square: np.ndarray) -> float:
    """The median squared distance of a row to its nearest neighbour, of a thousand rows."""
    asked = np.arange(0, len(z), -(-len(z) // BLOCK))
    gaps = square[asked, None] + square - 2 * z[asked] @ z.T
    gaps[np.arange(len(asked)), asked] = np.inf
    return max(0.0, float(np.median(gaps.min(1)))) if len(z) > 1 else 0.0
