"""Ingestion: an incoming file is divided into accepted rows and a quarantine."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from aisec_lab.core.files import sha256_of, write_json
from aisec_lab.data.validation.arrays import ArraySource
from aisec_lab.data.validation.checks import Checks
from aisec_lab.data.validation.dictionary import Field, layout_of
from aisec_lab.data.validation.docs import write_docs
from aisec_lab.data.validation.drift import Shift
from aisec_lab.data.validation.layout import DataSource, RefusedError
from aisec_lab.data.validation.quarantine import QuarantineLog
from aisec_lab.data.validation.reference import Reference, allowed_of
from aisec_lab.data.validation.result import IngestionResult
from aisec_lab.data.validation.store import counted, write_arrays, write_card, write_table
from aisec_lab.data.validation.suite import RowSuite
from aisec_lab.data.validation.tables import TableSource

TEXTS = (".csv", ".tsv")
SHOWN = 20  # columns that drifted, on the page of the whole file


@dataclass(frozen=True)
class Ingestion:
    """Holds an incoming file against the last accepted version of its dataset, and divides its rows.

    Args:
        most_quarantined: share of rows; above it the file is stopped.
        allow_drift: whether a file is accepted although the distribution of its columns has changed.
        alpha: of the tests for drift, over all columns together.
        smallest_shift: distance below which a column has not moved, however sure it is that it did.
        checks: of each row.

    Args of the call:
        source: an `.npz` or `.parquet` file, or a text file of separated values: `.csv`, `.tsv`, each also `.gz`.
        name: of the dataset.
        out: folder that is made, or that a former ingestion left and that is replaced.
        against: folder of the last accepted version, or None.
        label: the column of a table with the class, where no accepted version says it.
        dictionary: of the columns of a first table; its rules go with the version, for all that follow.

    Returns:
        The verdict. The folder `out` then has `name/` (the accepted rows as a dataset), `quarantine.*`, `docs/` and
        `verdict.json`. If it is stopped, `out` stays as it was, and `out.stopped` has the same without `name/`.

    Raises:
        RefusedError: no row of the file can be judged, or the accepted version is of the other kind.
        FileNotFoundError, FileExistsError: no source or accepted version; something else at `out`.
        ValueError: an input is where it would be replaced; a dictionary although a version was accepted, or without
            the label's classes.
    """

    most_quarantined: float = 0.05
    allow_drift: bool = False
    alpha: float = 0.01
    smallest_shift: float = 0.05
    checks: Checks = Checks()

    def __post_init__(self) -> None:
        for setting in ("most_quarantined", "alpha", "smallest_shift"):
            if not 0 <= getattr(self, setting) <= 1:
                raise ValueError(f"{setting} must lie in [0, 1], got {getattr(self, setting)}")

    def __call__(
        self,
        source: Path,
        name: str,
        out: Path,
        *,
        against: Path | None = None,
        label: str = "label",
        dictionary: Sequence[Field] = (),
    ) -> IngestionResult:
        _check(source, name, out, against)
        if dictionary and against:
            raise ValueError(f"a dictionary is for a first delivery: {against} has rules, and its own would be lost")
        written = layout_of(dictionary, label) if dictionary else None
        reference = Reference.read(against) if against else None
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as part:
            beside, scratch = Path(part) / "beside", Path(part) / "scratch"
            beside.mkdir()
            scratch.mkdir()
            incoming = scratch / f"incoming{''.join(source.suffixes[-2:])}"
            shutil.copyfile(source, incoming)  # read twice: what is written must be what was checked
            sha256 = sha256_of(incoming)
            rows = opened(incoming, reference.layout.label if reference else label)
            if reference and reference.table != isinstance(rows, TableSource):
                kept, ends = ("rows.parquet", ".parquet or .csv") if reference.table else ("train.npz", ".npz")
                raise RefusedError(f"the accepted version is kept as {kept}: give a {ends} file")
            if written and not isinstance(rows, TableSource):
                raise RefusedError("a dictionary is for tables: give a .parquet or .csv file")
            layout = reference.layout if reference else written or rows.layout()
            chunks = rows.chunks(layout)
            first = next(chunks, None)  # what makes the whole file unreadable is said before seconds of set-up
            reasons = QuarantineLog(scratch / "reasons")
            suite = RowSuite(layout, reference.allowed if reference else allowed_of(layout), name)
            shifts, unchecked = self.checks(
                chain([] if first is None else [first], chunks), layout, reference, suite, reasons, scratch
            )
            moved = [s for s in shifts if s.p < self.alpha and s.distance > self.smallest_shift]
            verdict = self._verdict(name, sha256, reference, reasons, moved, unchecked, rows.remarks(layout))

            accepted = None if verdict.stopped else beside / name
            if accepted:
                accepted.mkdir()
            if isinstance(rows, ArraySource):
                counts = write_arrays(rows, layout, reasons, beside, accepted)
            else:
                counts = write_table(rows.chunks(layout), layout, reasons, beside, accepted)
            if accepted:
                if counts.sum() != verdict.accepted:
                    raise RuntimeError(f"{counts.sum()} rows were written, {verdict.accepted} accepted")
                origin = {"source_sha256": sha256, "against": verdict.against}
                write_card(accepted, name, layout, counts, origin, against)
            facts = {"share of rows quarantined": (verdict.quarantined / verdict.rows, self.most_quarantined)}
            facts |= {f"drift of {s.column}": (s.distance, self.smallest_shift) for s in moved[:SHOWN]}
            write_docs(suite, facts, beside / "docs")
            write_json(beside / "verdict.json", verdict.record())
            reasons.close()
            _put(beside, out if accepted else stopped_at(out), Path(part) / "former")
            if accepted and stopped_at(out).exists():  # it was about another file
                os.rename(stopped_at(out), Path(part) / "past")
        return verdict

    def _verdict(
        self,
        name: str,
        sha256: str,
        reference: Reference | None,
        reasons: QuarantineLog,
        moved: list[Shift],
        unchecked: list[str],
        notes: list[str],
    ) -> IngestionResult:
        quarantined, counts = counted(reasons)
        share, stopped = quarantined / reasons.rows, None
        if share > self.most_quarantined or quarantined == reasons.rows:
            stopped = f"{share:.1%} of the rows are quarantined, {self.most_quarantined:.1%} may be"
        elif moved and not self.allow_drift:
            most = max(moved, key=lambda shift: shift.distance)
            have = "column has" if len(moved) == 1 else "columns have"
            stopped = f"{len(moved)} {have} drifted, {most.column} by {most.distance:.2f}"
        drifted = {shift.column: {"distance": shift.distance, "p": shift.p} for shift in moved}
        sha_before = reference.sha256 if reference else None
        said = tuple(unchecked), tuple(notes)
        return IngestionResult(name, sha256, sha_before, reasons.rows, quarantined, counts, drifted, *said, stopped)


def opened(path: Path, label: str) -> DataSource:
    """A file by the end of its name; `RefusedError` where it can be none of those."""
    name = path.name.lower()
    if name.endswith(".npz"):
        return ArraySource.read(path)
    if name.removesuffix(".gz").endswith(TEXTS) or name.endswith(".parquet"):
        return TableSource(path, label)
    raise RefusedError(f"{path.name}: an incoming file ends in .npz, .parquet or .csv, or in .tsv, .csv.gz or .tsv.gz")


def stopped_at(out: Path) -> Path:
    """The folder that says why a file was stopped.

    Args:
        out: the folder that would have been written.

    Returns:
        A folder beside it, whose name ends in `.stopped`.
    """
    return out.with_name(f"{out.name}.stopped")


def _check(source: Path, name: str, out: Path, against: Path | None) -> None:
    if not source.is_file():
        raise FileNotFoundError(f"no file at {source}")
    if not name.isidentifier():
        raise ValueError(f"name a dataset by letters, digits and _, got {name!r}")
    for place in (out, stopped_at(out)):
        if place.exists() and not (place / "verdict.json").exists():
            raise FileExistsError(f"{place} is there, and no ingestion has left it: choose another --out")
        for read in filter(None, (source, against)):
            if read.resolve().is_relative_to(place.resolve()):
                raise ValueError(f"{read} lies in {place}, which is replaced: choose another --out")


def _put(beside: Path, place: Path, former: Path) -> None:
    """A folder to its place, whole."""
    if place.exists():
        os.rename(place, former)
    os.rename(beside, place)
