"""Statistics of the last accepted version, with which incoming rows are compared."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aisec_lab.core.files import sha256_of
from aisec_lab.data.preparation import read_arrays
from aisec_lab.data.validation.arrays import ArraySource
from aisec_lab.data.validation.layout import DataSource, Layout
from aisec_lab.data.validation.tables import TableSource

SAMPLE = 20_000  # rows that are kept in memory
SLACK = 0.5  # of its range: by so much a column of a table may leave it


@dataclass(frozen=True, eq=False)
class Reference:
    """An accepted version, in memory that does not grow with it.

    Args:
        layout: what its rows are made of.
        sample: (S, D), float64: all rows, or every so many-th.
        low, high: (D,), the range of each column over all rows.
        allowed: (2, D), the least and the greatest value that is accepted.
        class_counts: (K,).
        sha256: of the version, as its card has it.
        table: whether it is kept as a table; else as arrays.
    """

    layout: Layout
    sample: np.ndarray
    low: np.ndarray
    high: np.ndarray
    allowed: np.ndarray
    class_counts: np.ndarray
    sha256: str
    table: bool

    @property
    def whole(self) -> np.ndarray:
        """The rows of the sample in which no cell is empty."""
        return self.sample[~np.isnan(self.sample).any(1)] if self.layout.nullable else self.sample

    @property
    def rows(self) -> int:
        """How many rows the version has."""
        return int(self.class_counts.sum())

    @classmethod
    def read(cls, folder: Path) -> "Reference":
        """Of a folder that `aisec data` or `aisec ingest` made.

        Raises:
            FileNotFoundError: no card there.
            ValueError: the files are not what their card says, or have no training rows.
        """
        if not (folder / "card.json").exists():
            raise FileNotFoundError(f"no accepted version at {folder}: name a folder with a card.json")
        card = json.loads((folder / "card.json").read_text())
        if "table" in card:
            file = folder / "rows.parquet"
            if not file.exists() or sha256_of(file) != card["sha256"]:
                raise ValueError(f"{file} is not what its card says: restore it (`dvc checkout`), or ingest it again")
            table = card["table"]
            layout = Layout(
                tuple(table["columns"]),
                {name: tuple(words) for name, words in table["words"].items()},
                table["label"],
                tuple(card["classes"]),
                tuple(card["shape"]),
                limits={name: (limits[0], limits[1]) for name, limits in table.get("limits", {}).items()},
                nullable=tuple(table.get("nullable", ())),
                whole=tuple(table.get("whole", ())),
                units=table.get("units", {}),
            )
            return cls.of(TableSource(file, layout.label), layout, sum(card["class_counts"]["train"]), card["sha256"])
        if "train" not in card["arrays_sha256"]:
            raise ValueError(f"{folder} has no training rows: ingest with --no-reference")
        x, y = read_arrays(folder / "train.npz", card["arrays_sha256"]["train"])
        source, names = ArraySource(x, y), tuple(card["features"])
        columns = names or source.layout().columns
        layout = Layout(columns, {}, "y", tuple(card["classes"]), tuple(card["shape"]), images=not names)
        return cls.of(source, layout, len(y), card["sha256"])

    @classmethod
    def of(cls, source: DataSource, layout: Layout, rows: int, sha256: str) -> "Reference":
        """Of rows that are known to be good."""
        table, parts, counts = isinstance(source, TableSource), [], np.zeros(len(layout.classes), np.int64)
        low, high = np.full(len(layout.columns), np.inf), np.full(len(layout.columns), -np.inf)
        step = -(-rows // SAMPLE)
        for chunk in source.chunks(layout):
            low, high = np.fmin(low, np.fmin.reduce(chunk.x)), np.fmax(high, np.fmax.reduce(chunk.x))
            counts += np.bincount(chunk.y, minlength=len(counts))
            parts.append(chunk.x[chunk.rows % step == 0])
        return cls(layout, np.concatenate(parts), low, high, _allowed(layout, low, high), counts, sha256, table)


def allowed_of(layout: Layout) -> np.ndarray:
    """(2, D): the limits where nothing was accepted yet: pixels in [0, 1], words that are known, and finite numbers.

    Or what a data dictionary says.
    """
    wide = np.finfo(np.float64).max
    given = {name: (max(low, -wide), min(high, wide)) for name, (low, high) in layout.limits.items()}
    most = {name: max(0.0, len(words) - 1.0) for name, words in layout.words.items()}
    limits = [
        (0.0, 1.0) if layout.images else (0.0, most[name]) if name in most else given.get(name, (-wide, wide))
        for name in layout.columns
    ]
    return np.array(limits).T


def _allowed(layout: Layout, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Limits for what follows an accepted version; a column within [0, 1] is taken for a share, and stays one.

    What a data dictionary says stays as well.
    """
    limits = allowed_of(layout)
    if layout.images:
        return limits
    number = np.array([name not in layout.words and name not in layout.limits for name in layout.columns])
    share = number & (low >= 0) & (high <= 1)
    reach = SLACK * (high - low)
    limits[:, number] = np.stack([low - reach, high + reach])[:, number]
    limits[:, share] = np.array([[0.0], [1.0]])
    return limits
