"""From an incoming file to accepted rows and a quarantine: nothing lost, nothing half-written, twice the same bytes."""

import csv
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv as pa_csv
from pyarrow import parquet

from aisec_lab.attacks.poisoning.label_flips import LabelFlips
from aisec_lab.core.files import sha256_of
from aisec_lab.data import Dataset, Prepared, prepare
from aisec_lab.data.validation import Ingestion, Reference, RefusedError, ingestion, layout, text_blocks

N, COLUMNS = 4000, ("a", "b", "c")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations and the rest reach for nothing outside."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"an ingestion reaches for {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """The accepted version of digits, and its training rows."""
    root = tmp_path_factory.mktemp("data")
    return prepare("digits", root), Prepared("digits")(root).train


def rows(n: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    """A table of three columns, a word and a label that the first column tells."""
    random = np.random.default_rng(seed)
    x, yes = random.normal(size=(n, 3)) + shift, random.random(n) < 0.5
    x[:, 0] += np.where(yes, 4, -4)
    word, label = random.choice(["x", "y"], n), np.where(yes, "yes", "no")
    return dict(zip(COLUMNS, x.T, strict=True)) | {"word": word, "label": label}


def written(path: Path, columns: dict[str, np.ndarray]) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The accepted version of a table, itself the outcome of an ingestion."""
    folder = tmp_path_factory.mktemp("first")
    verdict = Ingestion()(written(folder / "in.parquet", rows(N, 0)), "made", folder / "out")
    assert (verdict.rows, verdict.accepted, verdict.stopped) == (N, N, None)
    assert verdict.unchecked[0].endswith("there is no accepted version")
    return folder / "out" / "made"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the pages, which tell the time."""
    files = [path for path in folder.rglob("*") if path.is_file() and "docs" not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def quarantine(out: Path) -> dict[int, str]:
    """Row numbers and reasons."""
    with (out / "quarantine.csv").open() as lines:
        return {int(row): reasons for row, reasons in list(csv.reader(lines))[1:]}


def test_an_honest_version_of_digits_is_accepted_and_can_be_used(
    digits: tuple[Path, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows; the same bytes over the former outcome and elsewhere; a dataset of the lab, with the old test rows."""
    accepted, train = digits
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    np.savez(tmp_path / "in.npz", x=train.x.numpy(), y=train.y.numpy())
    for out in ("one", "one", "a/two"):
        verdict = Ingestion()(tmp_path / "in.npz", "digits", tmp_path / out, against=accepted)
    assert (verdict.rows, verdict.accepted, verdict.quarantined, verdict.stopped) == (1297, 1297, 0, None)
    assert contents(tmp_path / "one") == contents(tmp_path / "a/two")
    assert (tmp_path / "one/docs/index.html").exists()
    assert not list((tmp_path / "tmp").iterdir())
    again = Prepared("digits")(tmp_path / "one")
    assert torch.equal(again.train.x, train.x)
    assert torch.equal(again.test.y, Prepared("digits")(accepted.parent).test.y)
    for text in (b"one", str(tmp_path).encode(), socket.gethostname().encode()):
        assert not [name for name, data in contents(tmp_path / "one").items() if text in data and name[-4:] == "json"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flipped_labels_are_quarantined_and_honest_ones_are_not(
    seed: int, digits: tuple[Path, Dataset], tmp_path: Path
) -> None:
    """Of 10 % flips. On twenty other seeds 89 % were found and 0.20 % of the honest rows accused, with a standard
    deviation of 3.8 % and 0.11 %: the bounds are four and five of those away."""
    accepted, train = digits
    poisoned = LabelFlips(0.1)(train, generator=torch.Generator().manual_seed(seed))
    np.savez(tmp_path / "in.npz", x=train.x.numpy(), y=poisoned.dataset.y.numpy())
    verdict = Ingestion(most_quarantined=0.2)(tmp_path / "in.npz", "digits", tmp_path / "out", against=accepted)
    accused = np.zeros(len(train), bool)
    accused[list(quarantine(tmp_path / "out"))] = True
    assert verdict.quarantined == accused.sum()
    flipped = poisoned.poison_mask.numpy()
    assert accused[flipped].mean() >= 0.73
    assert accused[~flipped].mean() <= 0.0076


def planted() -> tuple[dict[str, list[object]], dict[int, str]]:
    """Rows with faults, and what is to be said of each."""
    columns: dict[str, list[object]] = {name: list(values) for name, values in rows(2000, 1).items()}
    said: dict[int, str] = {}

    def plant(row: int, column: str, value: object, reason: str) -> None:
        columns[column][row] = value
        said[row] = reason

    plant(3, "a", None, "missing (a)")
    plant(4, "b", float("nan"), "missing (b)")
    plant(5, "c", float("inf"), "out of range; extreme value (c)")
    plant(6, "a", -1e9, "out of range; extreme value; outlier (a)")
    plant(7, "word", "z", "unknown word (word)")
    plant(8, "word", None, "missing (word)")
    plant(9, "label", "maybe", "unknown label")
    plant(10, "label", None, "missing")
    plant(11, "b", None, "missing; unknown label (b)")
    plant(11, "label", "perhaps", "missing; unknown label (b)")
    for name in columns:
        columns[name][12] = columns[name][1]
        columns[name][13] = columns[name][2]
    said[12] = "duplicate of an earlier row"
    columns["a"][13] += 1e-4  # type: ignore[operator]
    said[13] = "near-duplicate of an earlier row"
    return columns, said


def test_every_planted_fault_is_found_and_every_row_is_kept_once(first: Path, tmp_path: Path) -> None:
    """The reasons of each row; accepted and quarantined rows together are the file, cell for cell."""
    columns, said = planted()
    table = pa.table(columns)
    parquet.write_table(table, tmp_path / "in.parquet")
    verdict = Ingestion()(tmp_path / "in.parquet", "made", tmp_path / "out", against=first)
    found = quarantine(tmp_path / "out")
    assert {row: found.get(row) for row in said} == said
    honest = len(found) - len(said)
    assert honest <= 0.01 * 2000, {row: reason for row, reason in found.items() if row not in said}
    assert verdict.accepted + verdict.quarantined == verdict.rows == 2000
    kept = parquet.read_table(tmp_path / "out/quarantine.parquet")
    assert kept["source_row"].to_pylist() == list(found) == sorted(found)
    assert str(kept.select(table.column_names).to_pylist()) == str(table.take(list(found)).to_pylist())
    rest = [row for row in range(2000) if row not in found]
    assert parquet.read_table(tmp_path / "out/made/rows.parquet").equals(table.take(rest))
    page = next((tmp_path / "out/docs/validations").rglob("*each row/**/*.html")).read_text()
    assert "row 3" in page


def test_a_csv_with_broken_rows_loses_none(first: Path, tmp_path: Path) -> None:
    """Too few cells, bad bytes, a word for a number: quarantined as they stand in the file; the others get types."""
    source = rows(1000, 2)
    lines = [",".join(map(str, values)).encode() for values in zip(*source.values(), strict=True)]
    lines[10], lines[20], lines[30] = b"1,2", b"\xff\xfe,1,1,x,yes", b"1,1,1,\xff,no"
    (tmp_path / "in.csv").write_bytes(b"a,b,c,word,label\n" + b"\n".join(lines) + b"\n")
    verdict = Ingestion()(tmp_path / "in.csv", "made", tmp_path / "out", against=first)
    found = quarantine(tmp_path / "out")
    assert (found[10], found[20].split(";")[0], found[30].split(";")[0]) == ("malformed", "unreadable", "unreadable")
    assert verdict.accepted + verdict.quarantined == verdict.rows == 1000
    kept = parquet.read_table(tmp_path / "out/quarantine.parquet").to_pylist()
    by_row = {row["source_row"]: row for row in kept}
    assert list(by_row) == list(found)
    assert by_row[10]["text"] == "1,2"
    assert by_row[20]["a"] == b"\xff\xfe"
    rest = [row for row in range(1000) if row not in found]
    expected = pa.table(source).take(rest)
    assert parquet.read_table(tmp_path / "out/made/rows.parquet").equals(expected)
    again = Ingestion()(tmp_path / "in.csv", "made", tmp_path / "again", against=tmp_path / "out/made")
    assert (again.against, again.stopped) == (json.loads((tmp_path / "out/made/card.json").read_text())["sha256"], None)


def test_bad_pixels_and_labels_are_rows_of_their_own(digits: tuple[Path, Dataset], tmp_path: Path) -> None:
    """NaN, beyond 1, a class that there is not; without an accepted version the class is as good as any."""
    accepted, train = digits
    x, y = train.x.numpy().copy(), train.y.numpy().copy()
    x[3, 0, 2, 2], x[4, 0, 1, 1], y[5], y[6] = np.nan, 1.5, 10, -1
    x[7], y[7] = x[8], y[8]
    np.savez(tmp_path / "in.npz", x=x, y=y)
    Ingestion()(tmp_path / "in.npz", "digits", tmp_path / "out", against=accepted)
    found = quarantine(tmp_path / "out")
    assert found[3] == "missing"
    assert found[4].startswith("out of range")
    assert (found[5], found[6]) == ("unknown label", "unknown label")
    assert found[8] == "duplicate of an earlier row"
    kept = np.load(tmp_path / "out/quarantine.npz")
    np.testing.assert_array_equal(kept["x"], x[list(found)])
    assert kept["y"].tolist() == y[list(found)].tolist()


def test_too_large_a_quarantine_stops_the_file_and_leaves_what_was(first: Path, tmp_path: Path) -> None:
    """As does drift, unless it is allowed; the next that is accepted clears away what spoke against another."""
    out, bad = tmp_path / "out", rows(1000, 3)
    Ingestion()(written(tmp_path / "good.parquet", rows(1000, 4)), "made", out, against=first)
    former = contents(out)
    bad["a"][:60] = np.nan
    verdict = Ingestion()(written(tmp_path / "bad.parquet", bad), "made", out, against=first)
    assert str(verdict).startswith("made stopped: 6.")
    assert verdict.accepted == 0
    assert contents(out) == former
    assert sorted(path.name for path in (tmp_path / "out.stopped").iterdir()) == [
        "docs", "quarantine.csv", "quarantine.parquet", "verdict.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out.stopped/verdict.json").read_text())["reasons"]["missing"] == 60
    moved = written(tmp_path / "moved.parquet", rows(1000, 5, shift=0.5))
    assert "3 columns have drifted, " in str(Ingestion()(moved, "made", out, against=first))
    assert contents(out) == former
    one = written(tmp_path / "one.parquet", rows(1000, 4) | {"a": rows(1000, 4)["a"] + 0.5})
    assert "1 column has drifted, a by " in str(Ingestion()(one, "made", out, against=first))
    verdict = Ingestion(allow_drift=True)(moved, "made", out, against=first)
    assert sorted(verdict.drifted) == ["a", "b", "c"]
    assert verdict.accepted > 900
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["out"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 255
    path.write_bytes(data)


BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty parquet": ("in.parquet", lambda path: path.write_bytes(b""), "no Parquet file"),
    "empty csv": ("in.csv", lambda path: path.write_bytes(b""), "the file is empty"),
    "only names": ("in.csv", lambda path: path.write_bytes(b"a,b,c,word,label\n"), "the file is empty"),
    "empty npz": ("in.npz", lambda path: path.write_bytes(b""), "no npz"),
    "noise as npz": ("in.npz", lambda path: path.write_bytes(os.urandom(1000)), "no npz"),
    "noise as csv": ("in.csv", lambda path: path.write_bytes(b"\xff\x00\xfe" * 999), "no CSV"),
    "cut": ("in.parquet", cut, "no Parquet file, or a damaged one"),
    "no such kind": ("in.xlsx", lambda path: path.write_bytes(b"x"), "ends in .npz, .parquet or .csv"),
    "a column less": ("in.csv", lambda path: path.write_text("a,b,word,label\n1,1,x,no\n"), "'c' is missing"),
    "a column twice": ("in.csv", lambda path: path.write_text("a,a,b,c,word,label\n1,1,1,1,x,no\n"), "there twice"),
    "an index written along": ("in.csv", lambda path: path.write_text(",a,b,c,word,label\n0,1,1,1,x,no\n"), "index"),
    "words for numbers": (
        "in.parquet",
        lambda path: written(path, rows(9, 0) | {"a": np.array(["1"] * 9)}),
        r"'a' holds words \(string\), where numbers are accepted",
    ),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_a_file_of_which_no_row_can_be_judged_is_refused(
    case: tuple[str, Callable[[Path], object], str], first: Path, tmp_path: Path
) -> None:
    """In one line; and nothing is written."""
    source = tmp_path / case[0]
    if source.suffix == ".parquet":
        written(source, rows(1000, 0))
    case[1](source)
    with pytest.raises(RefusedError, match=case[2]) as error:
        Ingestion()(source, "made", tmp_path / "out", against=first)
    assert "\n" not in str(error.value).strip()
    assert [path.name for path in tmp_path.iterdir()] == [case[0]]


def test_a_failure_at_the_end_leaves_what_was(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the pages was written when it came."""
    source = written(tmp_path / "in.parquet", rows(1000, 6))

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ingestion, "write_docs", full)
    with pytest.raises(OSError, match="disk full"):
        Ingestion()(source, "made", tmp_path / "out", against=first)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_a_file_that_changes_under_its_reader_is_taken_as_it_was(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one lies there while the rows are written: what is accepted is what was checked."""
    source, checked = written(tmp_path / "in.parquet", rows(1000, 6)), ingestion.write_table
    before = sha256_of(source)

    def swapped(*arguments: Any) -> np.ndarray:
        written(source, rows(1200, 7, shift=100))
        return checked(*arguments)

    monkeypatch.setattr(ingestion, "write_table", swapped)
    verdict = Ingestion()(source, "made", tmp_path / "out", against=first)
    assert (verdict.rows, verdict.source_sha256) == (1000, before)
    found = quarantine(tmp_path / "out")
    expected = pa.table(rows(1000, 6)).take([row for row in range(1000) if row not in found])
    assert parquet.read_table(tmp_path / "out/made/rows.parquet").equals(expected)


def test_a_file_of_the_other_kind_is_refused(digits: tuple[Path, Dataset], first: Path, tmp_path: Path) -> None:
    """What it left could be read by nobody."""
    x, y = digits[1].x.flatten(1).numpy(), digits[1].y.numpy()
    np.savez(tmp_path / "in.npz", x=x, y=y)
    columns = {str(place): column for place, column in enumerate(x.T)} | {"y": y}
    for source, against, ends in (
        (tmp_path / "in.npz", first, r".parquet or .csv file"),
        (written(tmp_path / "in.parquet", columns), digits[0], ".npz file"),
    ):
        with pytest.raises(RefusedError, match=f"is kept as .*: give a {ends}"):
            Ingestion()(source, "made", tmp_path / "out", against=against)


def test_the_card_has_the_name_that_was_given(first: Path, tmp_path: Path) -> None:
    """And not that of the version before."""
    Ingestion()(written(tmp_path / "in.parquet", rows(1000, 4)), "other", tmp_path / "out", against=first)
    assert json.loads((tmp_path / "out/other/card.json").read_text())["name"] == "other"


@pytest.mark.parametrize("kind", [pa.null(), pa.string(), pa.float64()], ids=["csv", "words", "numbers"])
def test_a_column_without_any_value_stops_a_first_table(kind: pa.DataType, tmp_path: Path) -> None:
    """Each of its rows lacks it."""
    columns, source = pa.table(rows(100, 0) | {"none": pa.nulls(100, kind)}), tmp_path / "in.parquet"
    if kind == pa.null():
        source = tmp_path / "in.csv"
        pa_csv.write_csv(columns, source)
    else:
        parquet.write_table(columns, source)
    verdict = Ingestion()(source, "made", tmp_path / "out")
    assert (verdict.accepted, verdict.reasons["missing"]) == (0, 100)


def test_what_no_ingestion_left_is_never_replaced(first: Path, tmp_path: Path) -> None:
    """Nor is a dataset ingested without a file, under a strange name, or against nothing."""
    source = written(tmp_path / "in.parquet", rows(100, 0))
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="no ingestion has left it"):
        Ingestion()(source, "made", tmp_path / "mine", against=first)
    with pytest.raises(FileNotFoundError, match="no file at"):
        Ingestion()(tmp_path / "absent.csv", "made", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no accepted version"):
        Ingestion()(source, "made", tmp_path / "out", against=tmp_path / "mine")
    with pytest.raises(ValueError, match=r"name a dataset by letters, digits and _, got '\.\./x'"):
        Ingestion()(source, "../x", tmp_path / "out")


def test_an_accepted_version_that_is_not_its_card_is_refused(first: Path, tmp_path: Path) -> None:
    """Else rows would be held against what somebody put there."""
    copy = tmp_path / "made"
    copy.mkdir()
    for path in first.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    flip(copy / "rows.parquet")
    with pytest.raises(ValueError, match="is not what its card says"):
        Ingestion()(written(tmp_path / "in.parquet", rows(100, 0)), "made", tmp_path / "out", against=copy)


@pytest.mark.parametrize("setting", ["most_quarantined", "alpha", "smallest_shift"])
def test_settings_are_shares(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} must lie in"):
        Ingestion(**{setting: 1.5})


@pytest.mark.parametrize("block", [10**7, 3000])
@pytest.mark.parametrize("wrong", [(40, 41, 500, 997), tuple(range(150))], ids=["anywhere", "the first block"])
def test_malformed_rows_shift_no_reason_to_another_row(
    block: int, wrong: tuple[int, ...], first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a block holds many chunks, and where the first has no row at all: bad values stay at their rows."""
    monkeypatch.setattr(text_blocks, "BLOCK", block)
    monkeypatch.setattr(layout, "CELLS", 4 * 37)
    lines = [",".join(map(str, values)) for values in zip(*rows(1000, 2).values(), strict=True)]
    bad = [row for row in range(5, 1000, 45) if row not in wrong]
    lines = ["1e9,1,1,x,yes" if row in bad else "1,2" * 8 if row in wrong else line for row, line in enumerate(lines)]
    (tmp_path / "in.csv").write_text("a,b,c,word,label\n" + "\n".join(lines) + "\n")
    verdict = Ingestion(most_quarantined=0.5)(tmp_path / "in.csv", "made", tmp_path / "out", against=first)
    found = quarantine(tmp_path / "out")
    assert verdict.rows == 1000
    assert [row for row, reason in found.items() if reason == "malformed"] == list(wrong)
    assert [row for row, reason in found.items() if reason.startswith("out of range; extreme")] == bad
    assert max(parquet.read_table(tmp_path / "out/made/rows.parquet")["a"].to_pylist()) < 1e9


@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_accepted_version_of_few_rows_can_be_asked(n: int, tmp_path: Path) -> None:
    """What so few cannot tell is named."""
    few = {name: column[:n] for name, column in rows(N, 0).items()}
    Ingestion()(written(tmp_path / "few.parquet", few), "made", tmp_path / "few")
    source = written(tmp_path / "in.parquet", rows(100, 1))
    verdict = Ingestion(most_quarantined=1)(source, "made", tmp_path / "out", against=tmp_path / "few/made")
    assert verdict.unchecked[0] == "outliers: there are fewer than 4 accepted rows"
    assert verdict.rows == 100


def test_a_version_without_training_rows_says_what_to_do(tmp_path: Path) -> None:
    """As some datasets of the catalog are."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made/card.json").write_text(json.dumps({"arrays_sha256": {"test": {}}, "features": []}))
    with pytest.raises(ValueError, match="has no training rows: ingest with --no-reference"):
        Reference.read(tmp_path / "made")


@pytest.mark.parametrize("place", ["out", "out.stopped"])
def test_what_is_read_is_never_replaced(place: str, first: Path, tmp_path: Path) -> None:
    """A file or an accepted version that lies where the outcome would: it would be gone."""
    shutil.copytree(first.parent, tmp_path / place)
    inside = written(tmp_path / place / "in.parquet", rows(100, 0))
    beside = written(tmp_path / "in.parquet", rows(100, 0))
    for source, against in ((inside, None), (beside, tmp_path / place / "made")):
        with pytest.raises(ValueError, match="which is replaced: choose another --out"):
            Ingestion()(source, "made", tmp_path / "out", against=against)
    assert inside.exists()


def test_a_column_cannot_write_into_the_pages(tmp_path: Path) -> None:
    """Its name is text, wherever it is shown."""
    columns = rows(500, 0)
    evil = {"<script>alert(1)</script>" if name == "a" else name: column for name, column in columns.items()}
    evil["<b>label</b>"] = evil.pop("label")
    Ingestion()(written(tmp_path / "one.parquet", evil), "made", tmp_path / "one", label="<b>label</b>")
    evil["<script>alert(1)</script>"] = columns["a"] + 5
    source = written(tmp_path / "two.parquet", evil)
    verdict = Ingestion(allow_drift=True, most_quarantined=1)(
        source, "made", tmp_path / "two", against=tmp_path / "one/made"
    )
    assert list(verdict.drifted) == ["<script>alert(1)</script>"]
    pages = "".join(path.read_text() for path in tmp_path.rglob("*.html"))
    assert "<script>alert" not in pages
    assert "<b>label" not in pages
    assert "&lt;script&gt;alert(1)" in pages
    assert "&amp;lt;" not in pages
