"""What is found in incoming rows, piece by piece: each against rows made so that the answer is known."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy import stats

from aisec_lab.data.validation import cells, duplicates, text_blocks
from aisec_lab.data.validation.arrays import ArraySource
from aisec_lab.data.validation.drift import Drift, chi_squared, holm
from aisec_lab.data.validation.duplicates import DuplicateIndex, near_repeats
from aisec_lab.data.validation.labels import mislabelled
from aisec_lab.data.validation.layout import UNKNOWN, Layout, RefusedError
from aisec_lab.data.validation.quarantine import BLOCK, QuarantineLog, Reason, said
from aisec_lab.data.validation.reference import Reference
from aisec_lab.data.validation.rows import Extremes, Outliers
from aisec_lab.data.validation.tables import TableSource


def table(path: Path, columns: dict[str, object]) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def normal(tmp_path: Path) -> Reference:
    """An accepted version: 5,000 rows of two columns that hang together, one that does not, and one of words."""
    random = np.random.default_rng(0)
    a = random.normal(size=5000)
    columns = {
        "a": a,
        "b": a + 0.1 * random.normal(size=5000),
        "c": random.exponential(size=5000),
        "word": random.choice(["x", "y"], 5000, p=[0.3, 0.7]),
        "label": random.integers(0, 3, 5000),
    }
    source = TableSource(table(tmp_path / "accepted.parquet", columns))
    return Reference.of(source, source.layout(), 5000, "sha")


def like(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Other rows of the same kind."""
    random = np.random.default_rng(seed)
    a = random.normal(size=n)
    b, c = a + 0.1 * random.normal(size=n), random.exponential(size=n)
    return np.stack([a, b, c, random.random(n) < 0.7], 1).astype(float), random.integers(0, 3, n)


def test_outliers_are_rows_whose_columns_do_not_go_together(normal: Reference) -> None:
    """Each value of the planted row is ordinary; of honest rows at most the share that was asked for is accused."""
    x, _ = like(20_000, 1)
    outliers = Outliers(normal, 0.01)
    accused = int(outliers(x).sum())
    assert stats.binomtest(accused, len(x), 0.01).pvalue > 1e-4, accused  # 1 % expected, whatever the seed
    planted = np.array([[1.5, -1.5, 1.0, 1.0], [1.5, 1.5, 1.0, 1.0]])
    assert outliers(planted).tolist() == [True, False]
    assert not outliers(np.array([[np.nan, 0, 0, 0], [np.inf, 0, 0, 0]])).any()  # the row rules speak about those


def test_outliers_need_four_accepted_rows() -> None:
    """Which may be equal: then every other one is an outlier."""
    x, y = np.ones((4, 2), np.float32), np.array([0, 1, 0, 1])
    three, four = (Reference.of(ArraySource(x[:n], y[:n]), ArraySource(x, y).layout(), n, "sha") for n in (3, 4))
    with pytest.raises(ValueError, match="at least 4 accepted rows, got 3"):
        Outliers(three, 0.5)
    assert Outliers(four, 0.5)(np.array([[1.0, 1.0], [9.0, 9.0]])).tolist() == [False, True]


def test_extreme_is_outside_the_range_and_far_from_the_median(normal: Reference) -> None:
    """By hand, from the sample's median and median absolute deviation; a rare large value that was accepted is none."""
    extremes, sample = Extremes(normal, 8.0), normal.sample
    center = np.median(sample, 0)
    mad = np.median(np.abs(sample - center), 0)
    x = np.repeat(center[None], 5, 0)
    x[1, 0] += 8.1 * 1.4826 * mad[0]
    x[2, 0] += 7.9 * 1.4826 * mad[0]
    x[3, 2] = sample[:, 2].max()
    x[4, 1] = np.nan
    assert sample[:, 2].max() > center[2] + 8 * 1.4826 * mad[2]  # so that row 3 shows what it shall
    far, column = extremes(x)
    assert far.tolist() == [False, True, False, False, False]
    assert column[1] == 0


def test_drift_meets_the_tests_of_scipy(normal: Reference) -> None:
    """The distance of a column that moved is that of the two-sample test, its p-value is Holm's; the rest stays."""
    x, y = like(4000, 2)
    x[:, 0] += 0.3
    x[:, 3] = np.random.default_rng(3).random(4000) < 0.5
    drift = Drift(normal)
    for part in np.array_split(np.arange(4000), 7):
        drift.add(x[part], y[part], np.ones(len(part), bool))
    shifts = {shift.column: shift for shift in drift.shifts()}
    exact = stats.ks_2samp(normal.sample[:, 0], x[:, 0]).statistic
    assert exact - 0.02 < shifts["a"].distance <= exact + 1e-12
    assert shifts["word"].distance == pytest.approx(abs(x[:, 3].mean() - normal.sample[:, 3].mean()))
    assert max(shifts["a"].p, shifts["word"].p) < 1e-10
    assert min(shifts[name].p for name in ("c", "label")) > 0.01


@pytest.mark.parametrize(("before", "now", "words"), [(5000, 50, 100), (500, 20, 10), (300, 300, 3), (40, 40, 30)])
@pytest.mark.parametrize("power", [0.0, 1.5])
def test_rare_words_do_not_accuse_an_honest_file(before: int, now: int, words: int, power: float) -> None:
    """Of 2,000 files hardly more than 1 % at the level of 1 %, though most words are expected less than once."""
    random, share = np.random.default_rng(0), np.arange(1, words + 1) ** -power
    counts = [(random.multinomial(n, share / share.sum(), 2000)) for n in (before, now)]
    p = np.array([chi_squared(*pair)[1] for pair in zip(*counts, strict=True)])
    assert stats.binomtest(int((p <= 0.01).sum()), 2000, 0.01, alternative="greater").pvalue > 1e-3
    moved = random.multinomial(now, share[::-1] / share.sum(), 1)[0]
    moved[-1] += now
    assert chi_squared(counts[0][0], moved)[1] < 1e-3, "one word is half of all rows"


def test_drift_accuses_honest_files_as_rarely_as_asked(normal: Reference) -> None:
    """200 honest files at alpha 0.05 over all columns: a file of which any column is accused is a false alarm."""
    alarms = 0
    for seed in range(200):
        drift = Drift(normal)
        x, y = like(500, 100 + seed)
        drift.add(x, y, np.ones(500, bool))
        alarms += min(shift.p for shift in drift.shifts()) < 0.05
    assert stats.binomtest(alarms, 200, 0.05, alternative="greater").pvalue > 1e-3, alarms


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.5])).tolist() == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_repeats_are_those_of_a_naive_search(tmp_path: Path) -> None:
    """Over many chunks; the first one stays; another label, or a bit of another value, is another row."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 3, (3000, 4)).astype(float), random.integers(0, 2, 3000)
    x[5] = np.nextafter(x[4], 9)
    repeats, which = DuplicateIndex(tmp_path, 4), random.random(3000) < 0.9
    for part in np.array_split(np.arange(3000), 11):
        repeats.add(x[part], y[part], part + 10**9, which[part])
    seen, expected = set(), []
    for row in np.flatnonzero(which):
        key = (*x[row], y[row])
        expected += [row + 10**9] if key in seen else []
        seen.add(key)
    assert sorted(np.concatenate(list(repeats.found()))) == expected
    assert not list(tmp_path.iterdir())


def test_near_repeats_are_those_of_a_naive_search() -> None:
    """Also across blocks, and at distances where float32 alone would be wrong."""
    random = np.random.default_rng(0)
    x = random.normal(size=(900, 6)) + 1000
    x = np.concatenate([x, x[:100] + 0.05 * random.normal(size=(100, 6)) * random.random((100, 1))])
    gaps = np.sqrt(np.square(x[:, None] - x).sum(2))
    limit = 0.1 * np.median((gaps + np.diag(np.full(1000, np.inf))).min(1))
    expected = [bool((gaps[row, :row] <= limit).any()) for row in range(1000)]
    assert 20 < sum(expected) < 90
    with pytest.MonkeyPatch.context() as patch:
        assert near_repeats(x, 0.1).tolist() == expected
        patch.setattr(duplicates, "BLOCK", 1000 // 3)  # the median is then one of 334 rows
        blocks = near_repeats(x, 0.1)
        assert np.mean(blocks == expected) > 0.97
    assert near_repeats(np.array([[0.0, 1], [2, 3], [0, 1]]), 0.0).tolist() == [False, False, True]


def test_labels_that_were_flipped_between_two_clouds_are_found() -> None:
    """Three quarters at least, and none else: the clouds do not touch. A class with too few rows is left alone."""
    y, found = np.r_[np.repeat([0, 2], 100), [1] * 5], 0
    for seed in range(10):
        random = np.random.default_rng(seed)
        x, given = random.normal(size=(205, 3)) + 20 * y[:, None], y.copy()
        flipped = random.choice(200, 20, replace=False)
        given[flipped] = 2 - given[flipped]
        told = mislabelled(x, given, 0.5)
        assert told is not None
        accused = np.flatnonzero(told)
        assert set(accused) <= set(flipped)
        found += len(accused)
    assert found >= 150
    assert mislabelled(x, np.zeros(205, np.int64), 0.5) is None
    assert mislabelled(x, np.random.default_rng(0).integers(0, 2, 205), 0.5) is None


def test_reasons_add_up_on_disk(tmp_path: Path) -> None:
    """Over several blocks, in any order, as in memory; and as a person reads them."""
    random, n = np.random.default_rng(0), 2 * BLOCK + 100
    expected, reasons = np.zeros(n, np.uint32), QuarantineLog(tmp_path / "reasons")
    for part in np.array_split(expected, 5):
        reasons.append(part)
    for reason in (Reason.DUPLICATE, Reason.MISSING):
        rows = random.choice(n, 500, replace=False)
        expected[rows] |= np.uint32(reason)
        reasons.add(rows, reason)
    reasons.add(np.array([], np.int64), Reason.OUTLIER)
    assert np.array_equal(np.concatenate(list(reasons.blocks())), expected)
    assert said(Reason.MISSING | Reason.DUPLICATE | 2 << 16, ("a", "b")) == "missing; duplicate of an earlier row (b)"


CSV = b'n,word,label\n1,x,0\n2,y\n\nfoo,x,1\n,"q,r",1\n5,\xff\xfe,2\n6,"two\nlines",2\n7,x,3,4\n1e400,y,9\n'


def test_a_csv_is_read_row_by_row_whatever_stands_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad bytes, words for numbers, too few and too many cells, a line break in a cell: in one piece or in many."""
    (tmp_path / "a.csv").write_bytes(CSV)
    layout = Layout(("n", "word"), {"word": ("q,r", "two\nlines", "x", "y")}, "label", ("0", "1", "2"), (2,))
    for block in (10**6, 40):
        monkeypatch.setattr(text_blocks, "BLOCK", block)
        chunks = list(TableSource(tmp_path / "a.csv").chunks(layout))
        assert np.concatenate([chunk.rows for chunk in chunks]).tolist() == [0, 2, 3, 4, 5, 7]
        assert [wrong for chunk in chunks for wrong in chunk.malformed] == [(1, "2,y"), (6, "7,x,3,4")]
        x = np.concatenate([chunk.x for chunk in chunks])
        np.testing.assert_array_equal(x[:, 0], [1, np.nan, np.nan, 5, 6, np.inf])
        np.testing.assert_array_equal(x[:, 1], [2, 2, 0, np.nan, 1, 3])
        assert np.concatenate([chunk.unreadable for chunk in chunks]).tolist() == [
            False,
            True,
            False,
            True,
            False,
            False,
        ]
        assert np.concatenate([chunk.y for chunk in chunks]).tolist() == [0, 1, 1, 2, 2, UNKNOWN]
    assert len(chunks) > 1


def test_a_quotation_mark_that_is_never_closed_ends_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bounded memory: the rest of the file would be one cell."""
    monkeypatch.setattr(text_blocks, "BLOCK", 1000)
    (tmp_path / "a.csv").write_bytes(b'n,label\n1,0\n2,"1\n' + b"3,0\n" * 1000)
    with pytest.raises(RefusedError, match="a quotation mark was not closed"):
        list(TableSource(tmp_path / "a.csv").chunks(Layout(("n",), {}, "label", ("0", "1"), (1,))))


OPEN: dict[str, tuple[bytes, str | int]] = {
    "in many cells": (b'1,x,0\n2,"y,0\n' + b"3,x,0\n" * 500, "row 1: a quotation mark was not closed"),
    "in the last cell": (b'1,x,"0\n2,y,0\n', "row 0: a quotation mark was not closed"),
    "within a cell": (b'1,x,0\n2,5",0\n3,x,0\n', 3),
    "closed": (b'1,x,0\n2,"y\ny",0\n', 2),
    "at the end": (b'1,x,0\n2,"y', 2),
    "in the last row": (b'1,x,0\n2,"y,0\n', 2),
}


@pytest.mark.parametrize("case", OPEN.values(), ids=OPEN)
def test_rows_behind_an_open_quotation_mark_are_not_lost(case: tuple[bytes, str | int], tmp_path: Path) -> None:
    """They would be one cell, and nobody would know; one that swallows no row is no matter of the file."""
    (tmp_path / "a.csv").write_bytes(b"n,word,label\n" + case[0])
    layout = Layout(("n", "word"), {"word": ("x", "y")}, "label", ("0",), (2,))
    if isinstance(case[1], str):
        with pytest.raises(RefusedError, match=case[1]):
            list(TableSource(tmp_path / "a.csv").chunks(layout))
    else:
        chunks = TableSource(tmp_path / "a.csv").chunks(layout)
        assert sum(len(chunk) + len(chunk.malformed) for chunk in chunks) == case[1]


def test_a_table_says_itself_what_it_is_made_of(tmp_path: Path) -> None:
    """Numbers and words by their type in Parquet, by their cells in a CSV; classes in the order of numbers."""
    (tmp_path / "a.csv").write_text("n,word,label\n1,x,10\nn/a,y,9\n3,x,10\n")
    assert TableSource(tmp_path / "a.csv").layout() == Layout(
        ("n", "word"), {"word": ("x", "y")}, "label", ("9", "10"), (2,)
    )
    path = table(tmp_path / "a.parquet", {"n": [1, 2], "b": [True, False], "label": ["no", "yes"]})
    assert TableSource(path).layout() == Layout(("n", "b"), {}, "label", ("no", "yes"), (2,))


def test_reading_a_table_takes_no_more_memory_where_there_are_more_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pyarrow holds while a chunk is looked at, of a hundred: some chunks, and not what came before."""
    n, chunk = 200_000, 2_000
    monkeypatch.setattr("aisec_lab.data.validation.layout.CELLS", 4 * chunk)
    random = np.random.default_rng(0)
    columns = {name: random.random(n) for name in "abcd"} | {"label": np.zeros(n, np.int64)}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=10_000, use_dictionary=False)
    del columns
    source = TableSource(tmp_path / "a.parquet")
    start, most, rows = pa.total_allocated_bytes(), 0, 0
    for part in source.chunks(Layout(("a", "b", "c", "d"), {}, "label", ("0",), (4,))):
        most, rows = max(most, pa.total_allocated_bytes() - start), rows + len(part)
    assert rows == n
    assert most < (tmp_path / "a.parquet").stat().st_size / 4, most


BAD_TABLES = {
    "label": ({"a": [1.0]}, "no column 'label'"),
    "alone": ({"label": [1]}, "at least one more"),
    "time": ({"a": pa.array([1], pa.timestamp("s")), "label": [1]}, "type timestamp"),
    "text": ({"a": [str(i) for i in range(1001)], "label": [0] * 1001}, "over 1000 different words"),
    "rows": ({"a": pa.array([], pa.float64()), "label": pa.array([], pa.int64())}, "no rows"),
}


@pytest.mark.parametrize("case", BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_that_cannot_be_judged_is_refused(case: tuple[dict[str, object], str], tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=case[1]):
        TableSource(table(tmp_path / "a.parquet", case[0])).layout()


BAD_ARRAYS = {
    "type of x": (np.zeros((2, 3)), np.zeros(2, int), "x must be uint8 or float32"),
    "shape of x": (np.zeros(2, np.float32), np.zeros(2, int), "x must be"),
    "type of y": (np.zeros((2, 3), np.uint8), np.zeros(2), "y must be integers"),
    "length of y": (np.zeros((2, 3), np.uint8), np.zeros(3, int), "y must be integers"),
    "no rows": (np.zeros((0, 3), np.uint8), np.zeros(0, int), "no rows"),
}


def npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 3), np.uint8))


def members(path: Path, x: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in ("x", "x.npy", "y"):
            file.writestr(name, x)


def header(shape: str) -> bytes:
    """Of an array file with nothing behind it."""
    line = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line


def encrypted(path: Path, place: int = 8, value: int = 1) -> None:
    """A flag in the central directory: the members are called encrypted, or packed by a method that there is not."""
    np.savez(path, x=np.zeros((3, 3), np.uint8), y=np.zeros(3, int))
    data = bytearray(path.read_bytes())
    start = -1
    while (start := data.find(b"PK\x01\x02", start + 1)) >= 0:
        data[start + place] = value
    path.write_bytes(data)


DAMAGED: dict[str, Callable[[Path], object]] = {
    "one array": npy,
    "no array": lambda path: members(path, b"text"),
    "too large": lambda path: members(path, header(f"({10**15},)")),
    "a bad header": lambda path: members(path, header("(1,")),
    "encrypted": encrypted,
    "packed strangely": lambda path: encrypted(path, 10, 99),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_npz_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    DAMAGED[case](tmp_path / "a.npz")
    with pytest.raises(RefusedError, match="no npz with arrays x and y") as error:
        ArraySource.read(tmp_path / "a.npz")
    assert "\n" not in str(error.value)


def test_one_huge_label_is_the_fault_of_its_row() -> None:
    """It makes no billion classes."""
    source = ArraySource(np.zeros((4, 3), np.uint8), np.array([0, 2**40, 2, -1]))
    layout = source.layout()
    assert layout.classes == ("0", "1", "2")
    assert next(source.chunks(layout)).y.tolist() == [0, UNKNOWN, 2, UNKNOWN]


WORDS = {
    "integers with a gap": (pa.array([1234567, None, 1234570]), ["1234567", None, "1234570"]),
    "whole floats": (pa.array([1234567.0, float("nan"), 1e17, -0.0]), ["1234567", None, "100000000000000000", "0"]),
    "floats": (pa.array([0.1, 0.1 + 2**-55, float("inf")]), ["0.1", "0.10000000000000003", "inf"]),
    "large": (pa.array([2**64 - 1, 2**64 - 2], pa.uint64()), ["18446744073709551615", "18446744073709551614"]),
    "yes or no": (pa.array([True, False]), ["1", "0"]),
}


@pytest.mark.parametrize("case", WORDS.values(), ids=WORDS)
def test_two_numbers_are_never_one_word(case: tuple[pa.Array, list[str | None]]) -> None:
    """And a whole one is the same word in every type."""
    words, bad = cells.texts(case[0])
    assert words.to_pylist() == case[1]
    assert not bad.any()


def test_labels_next_to_a_missing_one_stay_apart(tmp_path: Path) -> None:
    """pandas makes them floats."""
    labels = [1234567.0, 1234568.0, float("nan"), 1234569.0, 1234570.0]
    source = TableSource(table(tmp_path / "a.parquet", {"n": [1.0] * 5, "label": labels}))
    assert source.layout().classes == ("1234567", "1234568", "1234569", "1234570")


def test_a_whole_number_that_cannot_be_held_is_unreadable(tmp_path: Path) -> None:
    """2**53 and more; a float of that size is itself. By its type, and by how it is written."""
    large = [2**53 - 1, -(2**53) + 1, 2**53, 2**53 + 1, -(2**63), None]
    for column in (pa.array(large), pa.array(["" if one is None else str(one).encode() for one in large], pa.binary())):
        assert cells.numbers(column)[1].tolist() == [False, False, True, True, True, False]
    written = [b"1e300", b"9007199254740992.0", b"+9007199254740993 ", b"word"]
    assert cells.numbers(pa.array(written))[1].tolist() == [False, False, True, True]
    assert not cells.numbers(pa.array([1e300, 2.0**60]))[1].any()


HEADERS = {
    "a,label": ["a"],
    '\ufeff"a,b",label\r': ["a,b"],
    ' a , "b ""c""",label': ["a", 'b "c"'],
    "a,a,label": r"columns \['a'\] are there twice",
    ",a,label": "column '' is an index that was written along",
    "__index_level_0__,label": "is an index",
    "": "column '' is",
}


@pytest.mark.parametrize("header", HEADERS)
def test_the_first_line_names_the_columns(header: str, tmp_path: Path) -> None:
    """Each once, also with a comma in its name; or the file is refused."""
    expected, path = HEADERS[header], tmp_path / "a.csv"
    path.write_bytes(f"{header}\n".encode() + b"1,1,1"[: 2 * len(expected) + 1] + b"\n")
    if isinstance(expected, list):
        assert list(TableSource(path).layout().columns) == expected
    else:
        with pytest.raises(RefusedError, match=expected):
            TableSource(path)


@pytest.mark.parametrize("case", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_cannot_be_judged_are_refused(case: tuple[np.ndarray, np.ndarray, str]) -> None:
    with pytest.raises(RefusedError, match=case[2]):
        ArraySource(case[0], case[1])
