"""The reasons against each row of a file, and how the distribution of the rows has changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aisec_lab.data.validation.drift import Drift, Shift
from aisec_lab.data.validation.duplicates import DuplicateIndex, near_repeats
from aisec_lab.data.validation.labels import mislabelled
from aisec_lab.data.validation.layout import Chunk, Layout, RefusedError, comparable
from aisec_lab.data.validation.quarantine import COLUMN, QuarantineLog, Reason
from aisec_lab.data.validation.reference import Reference
from aisec_lab.data.validation.rows import LEAST, Extremes, Outliers
from aisec_lab.data.validation.seeming import doubtful
from aisec_lab.data.validation.suite import RowSuite

STRANGE = Reason.EXTREME | Reason.OUTLIER


@dataclass(frozen=True)
class Checks:
    """Every check of a row, in this order; those that compare rows are about rows that have passed the ones before.

    Args:
        extreme: robust z-score above which a value outside the accepted range is extreme.
        outliers: share of honest rows that may be called outliers.
        near: share of the usual distance to a nearest neighbour, up to which rows are near-duplicates.
        agreement: share of neighbours with its label up to which a row may be called mislabelled.
        most_compared: rows up to which each is compared with all others (near-duplicates and labels).

    Args of the call:
        chunks: all rows, in order.
        layout: of the rows.
        reference: the last accepted version, or None.
        suite: the rules of a row.
        reasons: empty; it is given a word for each row.
        scratch: a folder for what does not belong into memory.

    Returns:
        How each column has moved, and what was not looked at and why.

    Raises:
        RefusedError: no rows, or a file that cannot be read to its end.
    """

    extreme: float = 8.0
    outliers: float = 0.001
    near: float = 0.05
    agreement: float = 0.1
    most_compared: int = 20_000

    def __post_init__(self) -> None:
        for setting in ("outliers", "agreement"):
            if not 0 <= getattr(self, setting) <= 1:
                raise ValueError(f"{setting} is a share, in [0, 1], got {getattr(self, setting)}")
        for setting in ("extreme", "near", "most_compared"):
            if not getattr(self, setting) >= 0:
                raise ValueError(f"{setting} must not be negative, got {getattr(self, setting)}")

    def __call__(
        self,
        chunks: Iterable[Chunk],
        layout: Layout,
        reference: Reference | None,
        suite: RowSuite,
        reasons: QuarantineLog,
        scratch: Path,
    ) -> tuple[list[Shift], list[str]]:
        extremes = Extremes(reference, self.extreme) if reference else None
        few = reference is not None and len(reference.whole) < LEAST
        outliers = Outliers(reference, self.outliers) if reference and not few else None
        drift, repeats = Drift(reference) if reference else None, DuplicateIndex(scratch, len(layout.columns))
        kept: list[tuple[np.ndarray, ...]] | None = []
        for chunk in chunks:
            words = suite(chunk)
            words[chunk.unreadable] |= np.uint32(Reason.UNREADABLE)
            if extremes:
                far, column = extremes(chunk.x)
                words[far] |= np.uint32(Reason.EXTREME)
                words[far] |= np.where(words[far] >> COLUMN, 0, (column[far] + 1) << COLUMN).astype(np.uint32)
            if outliers:
                words[outliers(chunk.x)] |= np.uint32(Reason.OUTLIER)
            passed = words == 0
            repeats.add(chunk.x, chunk.y, chunk.rows, passed)
            if drift:  # strange rows too: they are a part of how the rows are
                drift.add(chunk.x, chunk.y, words & np.uint32(0xFFFF & ~STRANGE) == 0)
            if kept is not None:
                kept.append((chunk.x[passed], chunk.y[passed], chunk.rows[passed]))
                kept = kept if sum(len(part[2]) for part in kept) <= self.most_compared else None
            reasons.append(_with_malformed(chunk, words))
        if not reasons.rows:
            raise RefusedError("no rows")
        for again in repeats.found():
            reasons.add(again, Reason.DUPLICATE)
        unchecked = []
        if not reference:
            ranges = "" if layout.limits else "ranges, "
            unchecked.append(f"{ranges}extreme values, outliers, drift: there is no accepted version")
        if few:
            unchecked.append(f"outliers: there are fewer than {LEAST} accepted rows")
        if seem := doubtful(layout):
            unchecked.append(f"near-duplicates, labels: {', '.join(seem)} may be no words, so distances mean little")
        elif kept is None:
            unchecked.append(f"near-duplicates, labels: there are more than {self.most_compared} rows")
        else:
            unchecked += self._compare(kept, layout, reasons)
        return drift.shifts() if drift else [], unchecked

    def _compare(self, kept: list[tuple[np.ndarray, ...]], layout: Layout, reasons: QuarantineLog) -> list[str]:
        """Checks that need all rows that have passed so far; returns what could not be checked."""
        x, y, rows = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        passed = reasons.read(0, reasons.rows)[rows] == 0
        if not passed.any():
            return []
        x, y, rows = comparable(layout, x[passed]), y[passed], rows[passed]
        near = near_repeats(x, self.near)
        reasons.add(rows[near], Reason.NEAR_DUPLICATE)
        wrong = mislabelled(x[~near], y[~near], self.agreement)
        if wrong is None:
            return ["labels: they cannot be told from the rows better than by the most frequent one"]
        reasons.add(rows[~near][wrong], Reason.MISLABELLED)
        return []


def _with_malformed(chunk: Chunk, words: np.ndarray) -> np.ndarray:
    """The words of a chunk, with those of rows that are none put in where they stand in the file."""
    if not chunk.malformed:
        return words
    wrong = np.array([row for row, _ in chunk.malformed], np.int64)
    rows = np.concatenate([chunk.rows, wrong])
    both = np.concatenate([words, np.full(len(wrong), Reason.MALFORMED, np.uint32)])
    return both[np.argsort(rows, kind="stable")]
