"""What an ingestion leaves: the accepted rows as a dataset of the lab, and the quarantine."""

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from aisec_lab.core.files import sha256_of, write_json
from aisec_lab.data.preparation import array_sha256
from aisec_lab.data.validation.arrays import ArraySource
from aisec_lab.data.validation.cells import is_number
from aisec_lab.data.validation.layout import Chunk, Layout
from aisec_lab.data.validation.quarantine import SAID, QuarantineLog, Reason, said

UNSTATED = dict.fromkeys(("source", "licence", "citation"), "not stated")


def write_table(
    chunks: Iterator[Chunk], layout: Layout, reasons: QuarantineLog, folder: Path, accepted: Path | None
) -> np.ndarray:
    """Divide the rows of a table into `accepted/rows.parquet` and `folder/quarantine.parquet`, with their reasons.

    Args:
        chunks: all rows, in order.
        layout: of its rows.
        reasons: a word for each row.
        folder: where the quarantine is written; exists.
        accepted: where the others are written; None where nothing is accepted.

    Returns:
        Accepted rows of each class (K,).
    """
    counts = np.zeros(len(layout.classes), np.int64)
    with ExitStack() as files:
        writers: dict[Path, parquet.ParquetWriter] = {}

        def write(path: Path, batch: pa.RecordBatch) -> None:
            if path not in writers:
                words = [field.name for field in batch.schema if not is_number(field.type)]  # a number is rarely twice
                writers[path] = files.enter_context(parquet.ParquetWriter(path, batch.schema, use_dictionary=words))
            if len(batch):
                writers[path].write_batch(batch)

        listing = csv.writer(files.enter_context((folder / "quarantine.csv").open("w")), lineterminator="\n")
        listing.writerow(["row", "reasons"])
        for chunk in chunks:
            wrong = dict(chunk.malformed)
            rows = np.union1d(chunk.rows, np.fromiter(wrong, np.int64, len(wrong))) if wrong else chunk.rows
            if len(rows) and rows[-1] - rows[0] != len(rows) - 1:
                raise ValueError(f"rows {rows[0]} to {rows[-1]} are not {len(rows)}: their reasons would be others'")
            words = reasons.read(int(rows[0]), len(rows)) if len(rows) else np.empty(0, np.uint32)
            for row, word in zip(rows[words > 0].tolist(), words[words > 0].tolist(), strict=True):
                listing.writerow([row, said(word, layout.columns)])
            good = words[np.searchsorted(rows, chunk.rows)] == 0
            write(folder / "quarantine.parquet", _quarantined(chunk, ~good, wrong))
            if accepted:
                counts += np.bincount(chunk.y[good], minlength=len(counts))
                write(accepted / "rows.parquet", _typed(chunk, layout).filter(pa.array(good)))
    return counts


def write_arrays(
    source: ArraySource, layout: Layout, reasons: QuarantineLog, folder: Path, accepted: Path | None
) -> np.ndarray:
    """The same for arrays: `accepted/train.npz` and `folder/quarantine.npz`."""
    words = reasons.read(0, reasons.rows)
    with (folder / "quarantine.csv").open("w") as file:
        listing = csv.writer(file, lineterminator="\n")
        listing.writerow(["row", "reasons"])
        for row in np.flatnonzero(words).tolist():
            listing.writerow([row, said(int(words[row]), layout.columns)])
    bad, good = np.flatnonzero(words), np.flatnonzero(words == 0)
    np.savez_compressed(folder / "quarantine.npz", row=bad, x=source.x[bad], y=source.y[bad])
    if accepted:
        np.savez_compressed(accepted / "train.npz", x=source.x[good], y=source.y[good].astype(np.int64))
    return np.bincount(source.y[good].astype(np.int64), minlength=len(layout.classes))


def write_card(
    accepted: Path, name: str, layout: Layout, counts: np.ndarray, origin: dict[str, Any], against: Path | None
) -> None:
    """The card of an accepted version, as `aisec data` writes it; the other splits come from the version before."""
    card: dict[str, Any] = {"name": name, "title": name} | UNSTATED
    old = json.loads((against / "card.json").read_text()) if against else {}
    table = (accepted / "rows.parquet").exists()
    sizes, class_counts = old.get("sizes", {}), old.get("class_counts", {})
    card |= old | {
        "name": name,
        "shape": list(layout.shape),
        "classes": list(layout.classes),
        "features": [] if layout.images else list(layout.columns),
        "sizes": sizes | {"train": int(counts.sum())},
        "class_counts": class_counts | {"train": counts.tolist()},
        "ingested": origin,
    }
    if table:
        card["table"] = {"columns": list(layout.columns), "words": layout.words, "label": layout.label}
        for said in ("limits", "nullable", "whole", "units"):  # by a data dictionary
            if given := getattr(layout, said):
                card["table"][said] = given
        card["sha256"] = sha256_of(accepted / "rows.parquet")
    else:
        with np.load(accepted / "train.npz") as arrays:
            sums = {key: array_sha256(arrays[key]) for key in ("x", "y")}
        card["arrays_sha256"] = old.get("arrays_sha256", {}) | {"train": sums}
        card["sha256"] = hashlib.sha256(json.dumps(card["arrays_sha256"], sort_keys=True).encode()).hexdigest()
        for split in set(card["arrays_sha256"]) - {"train"}:
            assert against is not None
            shutil.copyfile(against / f"{split}.npz", accepted / f"{split}.npz")
    write_json(accepted / "card.json", card)


def _quarantined(chunk: Chunk, bad: np.ndarray, wrong: dict[int, str]) -> pa.RecordBatch:
    """Rows as the file has them, with their number, and those that are none as their text."""
    rows, content = chunk.rows[bad], chunk.content.filter(pa.array(bad))
    batch = content.add_column(0, _free("source_row", content.schema), pa.array(rows, pa.int64()))
    batch = batch.append_column(_free("text", batch.schema), pa.nulls(len(rows), pa.string()))
    if not wrong:
        return batch
    nulls = [pa.nulls(len(wrong), field.type) for field in content.schema]
    columns = [pa.array(list(wrong), pa.int64()), *nulls, pa.array(list(wrong.values()), pa.string())]
    both = pa.Table.from_batches([batch, pa.RecordBatch.from_arrays(columns, schema=batch.schema)])
    return both.sort_by(batch.schema.names[0]).combine_chunks().to_batches()[0]


def _typed(chunk: Chunk, layout: Layout) -> pa.RecordBatch:
    """Rows of a Parquet file as they are; the bytes of a CSV as numbers and words."""
    if not all(pa.types.is_binary(kind) for kind in chunk.content.schema.types):
        return chunk.content
    columns = {}
    for name in chunk.content.schema.names:
        if name != layout.label and name not in layout.words:
            columns[name] = pa.array(chunk.x[:, layout.columns.index(name)])
        else:
            known = layout.classes if name == layout.label else layout.words[name]
            codes = chunk.y if name == layout.label else np.nan_to_num(chunk.x[:, layout.columns.index(name)], nan=-1)
            places = pa.array(codes.astype(np.int64), mask=codes < 0)
            columns[name] = pa.array(known, pa.string()).take(places)
    return pa.record_batch(columns)


def _free(name: str, schema: pa.Schema) -> str:
    while name in schema.names:
        name += "_"
    return name


def counted(reasons: QuarantineLog) -> tuple[int, dict[str, int]]:
    """Rows with any reason, and how many each reason speaks against."""
    quarantined, counts = 0, dict.fromkeys(SAID, 0)
    for words in reasons.blocks():
        quarantined += int((words > 0).sum())
        for reason in Reason:
            counts[reason] += int((words & np.uint32(reason) > 0).sum())
    return quarantined, {SAID[reason]: count for reason, count in counts.items() if count}
