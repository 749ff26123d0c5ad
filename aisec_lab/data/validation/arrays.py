"""Rows of an `.npz` file: `x` and `y` as the lab prepares them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from aisec_lab.data.validation.layout import MOST_WORDS, UNKNOWN, Chunk, Layout, RefusedError


@dataclass(frozen=True, eq=False)
class ArraySource:
    """`x` (N, *shape), uint8 or float32, and `y` (N,), integers."""

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if x.dtype not in (np.uint8, np.float32) or x.ndim < 2:
            raise RefusedError(f"x must be uint8 or float32 (N, *shape), got {x.dtype} {x.shape}: convert it")
        if y.dtype.kind not in "iu" or y.shape != (len(x),):
            raise RefusedError(f"y must be integers ({len(x)},), got {y.dtype} {y.shape}: give a class for each row")
        if not x.size:
            raise RefusedError(f"no rows: x is empty, {x.shape}")

    @classmethod
    def read(cls, path: Path) -> "ArraySource":
        """From a file."""
        try:
            with np.load(path, allow_pickle=False) as members:
                x, y = members["x"], members["y"]
        except FileNotFoundError:
            raise
        except Exception as error:  # of a damaged file numpy and zipfile raise nearly everything
            said = " ".join(str(error).split())
            raise RefusedError(f"no npz with arrays x and y, or a damaged one ({said})") from error
        if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)):
            raise RefusedError("no npz with arrays x and y: one of them is something else")
        return cls(x, y)

    def layout(self) -> Layout:
        """Images, or a table whose columns have no names; classes up to the largest label below MOST_WORDS."""
        shape = self.x.shape[1:]
        columns = tuple(str(number) for number in range(int(np.prod(shape))))
        most = self.y[(self.y >= 0) & (self.y < MOST_WORDS)].max(initial=0)  # a larger one is its row's fault
        classes = tuple(str(number) for number in range(int(most) + 1))
        return Layout(columns, {}, "y", classes, shape, images=True)

    def remarks(self, layout: Layout) -> list[str]:
        """None: arrays have types."""
        return []

    def chunks(self, layout: Layout) -> Iterator[Chunk]:
        """Pixels in [0, 1]; `content` holds nothing but the row's number, as the arrays are there."""
        if self.x.shape[1:] != layout.shape:
            raise RefusedError(f"rows of x have shape {self.x.shape[1:]}, those of the accepted version {layout.shape}")
        for start in range(0, len(self.x), layout.chunk_rows):
            part = slice(start, start + layout.chunk_rows)
            x, y = self.x[part].reshape(len(self.x[part]), -1), self.y[part].astype(np.int64)
            rows = np.arange(start, start + len(x))
            yield Chunk(
                rows,
                x / 255 if x.dtype == np.uint8 else x.astype(np.float64),
                np.where((y >= 0) & (y < len(layout.classes)), y, UNKNOWN),
                np.zeros(len(x), bool),
                pa.record_batch({"row": rows}),
            )
