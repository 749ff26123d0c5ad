"""A million rows through the door, and their memory: `python -m benchmarks.ingest` writes ingest.json.

The rows are made here: 20 columns of numbers, a label, and one row in two hundred with a fault of each of four kinds.
Times are CPU seconds of a process of its own on one thread, without imports, and a multiple of those in which pyarrow
reads the same file in the same chunks. What does not grow with the rows (the context of Great Expectations, its pages,
the accepted version) is in `ingest_cpu_seconds` too: the difference between two sizes is without it.
"""

import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

OUT = Path(__file__).with_suffix(".json")
COLUMNS, CLASSES, ACCEPTED = 20, 10, 100_000
SIZES = {"parquet": (250_000, 1_000_000, 4_000_000), "csv": (250_000, 1_000_000, 2_000_000)}
REPEATS = 2
CHILD = """
import sys, time
from pathlib import Path
import great_expectations
from aisec_lab.data.validation import Ingestion, Reference
from aisec_lab.data.validation.ingestion import opened
from aisec_lab.data.validation.suite import RowSuite
kind, source, out, against = sys.argv[1], *map(Path, sys.argv[2:])
reference = Reference.read(against)
import cleanlab, sklearn.covariance, scipy.stats
start = time.process_time()
if kind == "read":
    table = opened(source, "label")
    for batch in table._batches(reference.layout.chunk_rows):
        pass
if kind == "numbers":
    for chunk in opened(source, "label").chunks(reference.layout):
        pass
if kind == "rules":
    suite = RowSuite(reference.layout, reference.allowed, "made")
    start = time.process_time()
    for chunk in opened(source, "label").chunks(reference.layout):
        suite(chunk)
if kind == "ingest":
    print(Ingestion()(source, "made", out, against=against), file=sys.stderr)
seconds = time.process_time() - start
print(seconds, next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def rows(n: int, seed: int, *, faults: bool) -> pa.RecordBatch:
    """Rows that hang together, and faults: missing, out of range, unknown label, a repeated row."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(COLUMNS, COLUMNS))
    x = random.normal(size=(n, COLUMNS)) @ mixing
    y = random.integers(0, CLASSES, n)
    if faults:
        chosen = random.permutation(np.arange(1, n))[: 4 * (n // 800)].reshape(4, -1)
        x[chosen[0], random.integers(0, COLUMNS, len(chosen[0]))] = np.nan
        x[chosen[1], random.integers(0, COLUMNS, len(chosen[1]))] = 1e6
        y[chosen[2]] = CLASSES
        x[chosen[3]], y[chosen[3]] = x[0], y[0]
    return pa.record_batch({f"column{i}": x[:, i] for i in range(COLUMNS)} | {"label": y})


def write(path: Path, n: int, seed: int, *, faults: bool = True) -> None:
    """A table, in pieces, so that making it takes no more memory than reading it."""
    writer: Any = None
    for start in range(0, n, 250_000):
        batch = rows(min(250_000, n - start), seed + start, faults=faults)
        if writer is None:
            writer = (csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter)(path, batch.schema)
        writer.write_batch(batch)
    writer.close()


def child(*arguments: object) -> tuple[float, float]:
    """CPU seconds, and MiB at most in memory, of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds, kib = done.stdout.split()[-2:]
    return float(seconds), int(kib) / 1024


def measured(source: Path, folder: Path, against: Path) -> dict[str, float]:
    """One file: reading, the row rules, the whole of it; each the least of some runs."""
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in ("read", "numbers", "rules", "ingest")}
    for _ in range(REPEATS):
        for kind, runs in found.items():
            runs.append(child(kind, source, folder / "out", against))
    read, numbers, rules, whole = (min(seconds for seconds, _ in runs) for runs in found.values())
    return {
        "file_mib": source.stat().st_size / 2**20,
        "read_cpu_seconds": read,
        "read_as_numbers_cpu_seconds": numbers,
        "row_rules_cpu_seconds": rules,
        "ingest_cpu_seconds": whole,
        "row_rules_over_read": rules / read,
        "ingest_over_read": whole / read,
        "ingest_over_read_as_numbers": whole / numbers,
        "read_peak_mib": max(peak for _, peak in found["read"]),
        "ingest_peak_mib": max(peak for _, peak in found["ingest"]),
    }


def main() -> None:
    from aisec_lab.data.validation import Ingestion

    results: dict[str, Any] = {
        "columns": COLUMNS,
        "faulty_rows": "0.5 %, of four kinds",
        "accepted_version_rows": ACCEPTED,
        "clock": f"CPU seconds of one process, one thread; the least of {REPEATS}",
        "versions": {name: version(name) for name in ("great-expectations", "numpy", "pandas", "pyarrow", "scipy")}
        | {"python": platform.python_version()},
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder / "first.parquet", ACCEPTED, 10**9, faults=False)
        verdict = Ingestion()(folder / "first.parquet", "made", folder / "first")
        assert not verdict.stopped, verdict
        for suffix, sizes in SIZES.items():
            for n in sizes:
                source = folder / f"rows.{suffix}"
                write(source, n, n)
                results[f"{suffix}, {n} rows"] = measured(source, folder, folder / "first" / "made")
                print(suffix, n, results[f"{suffix}, {n} rows"], flush=True)
                source.unlink()
    OUT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
