"""The tidy table: written, read, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy.stats import binom, ttest_1samp

from aisec_lab.evaluation import over_seeds, rate, read_table, tidy, write_table
from aisec_lab.evaluation.table import KEY, TYPES

CELL = {"study": "robustness", "data": "digits", "model": "cnn", "attack": "none"}


def cell(defense: str, seed: int, successes: int, **more: Any) -> dict[str, Any]:
    """A clean accuracy over 10 rows."""
    return rate("clean_accuracy", successes, 10, defense=defense, seed=seed, **CELL | more)


ROWS = [
    cell("trades", 1, 8),
    cell("standard", 0, 9, config="ab12"),
    cell("trades", 0, 6, attack="pgd", knob="Linf", level=0.1, queries=40.0, trusted=True),
    {"metric": "training_forward_passes", "value": 20, "defense": "standard", "seed": 0} | CELL,
]


def test_rows_become_the_table_whatever_their_order() -> None:
    """Every column in its type; what was not said is NA; sorted by what was measured."""
    table = tidy(ROWS)
    assert {name: str(kind) for name, kind in table.dtypes.items()} == TYPES
    assert list(table.columns) == list(TYPES)
    assert_frame_equal(tidy(ROWS[::-1]), table)
    assert table.defense.tolist() == ["standard", "standard", "trades", "trades"]
    assert table.value.tolist() == [0.9, 20, 0.8, 0.6]
    assert table.trusted.isna().tolist() == [True, True, True, False]
    assert table.low.isna().tolist() == [False, True, False, False]
    assert len(tidy([])) == 0


def test_what_is_written_is_read_and_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Types and missing values too."""
    for name in ("a.parquet", "b.parquet"):
        write_table(tidy(ROWS), tmp_path / name)
    assert_frame_equal(read_table(tmp_path / "a.parquet"), tidy(ROWS))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0] | {"colour": "red"}], r"these rows: columns missing: none, unknown: \['colour'\]"),
        ([ROWS[0] | {"seed": "first"}], "these rows: column 'seed' cannot be Int64"),
        ([ROWS[0] | {"seed": 0.5}], "these rows: column 'seed' cannot be Int64"),
        ([ROWS[0] | {"value": "high"}], "these rows: column 'value' cannot be Float64"),
        ([ROWS[0] | {"trusted": "perhaps"}], "these rows: column 'trusted' cannot be boolean"),
        ([*ROWS, cell("trades", 1, 3)], "measured twice: .*'defense': 'trades'.*'seed': 1.*; keep one"),
    ],
)
def test_rows_that_are_no_measurements_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    """An unknown column, a value of another type, a measurement made twice, with NA in what tells it from others."""
    with pytest.raises(ValueError, match=message):
        tidy(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns=["low", "high"]), r"missing: \['high', 'low'\], unknown: none"),
        (lambda table: table.assign(eps=1), r"missing: none, unknown: \['eps'\]"),
    ],
)
def test_another_table_is_not_written(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str, tmp_path: Path
) -> None:
    """And the one that was there stays."""
    write_table(tidy(ROWS), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=f"the table: columns {message}"):
        write_table(change(tidy(ROWS)), tmp_path / "t.parquet")
    assert_frame_equal(read_table(tmp_path / "t.parquet"), tidy(ROWS))


def test_a_table_whose_writing_fails_leaves_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the bytes were on the disk."""
    write_table(tidy(ROWS), tmp_path / "t.parquet")

    def full(self: pd.DataFrame, path: Path, index: bool) -> None:
        path.write_bytes(b"PAR1 half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space"):
        write_table(tidy(ROWS[:1]), tmp_path / "t.parquet")
    assert_frame_equal(read_table(tmp_path / "t.parquet"), tidy(ROWS))
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def as_text(path: Path) -> None:
    """Right columns, wrong types."""
    tidy(ROWS).astype("string").fillna("none").to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (Path.unlink, FileNotFoundError, "no table at .*t.parquet: run `aisec repro`"),
        (halve, ValueError, "t.parquet is no Parquet file, or half of one .*: run `aisec repro`"),
        (lambda path: path.write_bytes(b""), ValueError, "t.parquet is no Parquet file"),
        (lambda path: path.write_text("a,b\n1,2\n"), ValueError, "t.parquet is no Parquet file"),
        (
            lambda path: tidy(ROWS).drop(columns="n").to_parquet(path),
            ValueError,
            r"missing: \['n'\].*aisec repro",
        ),
        (as_text, ValueError, "t.parquet: column 'level' cannot be Float64"),
    ],
    ids=["missing", "half", "empty", "text", "a column short", "other types"],
)
def test_a_file_that_is_no_table_says_so(
    damage: Callable[[Path], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    """Where, what, and how to get it back, in one line."""
    write_table(tidy(ROWS), tmp_path / "t.parquet")
    damage(tmp_path / "t.parquet")
    with pytest.raises(error, match=message) as caught:
        read_table(tmp_path / "t.parquet")
    assert "\n" not in str(caught.value)


def test_over_seeds_is_a_mean_in_an_envelope() -> None:
    """One row for each measurement; the interval reaches from the lowest to the highest end of any seed."""
    table = tidy([cell("trades", s, k) for s, k in enumerate((6, 9, 8))] + [ROWS[1], ROWS[3]])
    found = over_seeds(table).set_index(["defense", "metric"])
    trades = found.loc["trades", "clean_accuracy"]
    assert trades.value == pytest.approx((0.6 + 0.9 + 0.8) / 3)
    assert trades.low == rate("", 6, 10)["low"]
    assert trades.high == rate("", 9, 10)["high"]
    assert (trades.n, trades.seeds) == (10, 3)
    assert found.loc["standard", "clean_accuracy"].value == 0.9
    assert pd.isna(found.loc["standard", "training_forward_passes"].low)
    assert len(found) == 3
    wider = over_seeds(table[table.defense == "trades"], population=True).iloc[0]
    t = ttest_1samp([0.6, 0.9, 0.8], 0).confidence_interval(0.95)
    assert (wider.low, wider.high) == (trades.low, pytest.approx(t.high))
    with pytest.raises(ValueError, match="one seed says nothing of others: run two at least"):
        over_seeds(table, population=True)
    assert list(over_seeds(table).columns) == [*(k for k in KEY if k != "seed"), "value", "low", "high", "n", "seeds"]


@pytest.mark.parametrize("rows", [20, 20_000])
@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_few_seeds_are_covered(rows: int, spread: float) -> None:
    """Three seeds: the envelope covers their own mean; widened, that of all seeds, which else it misses oftener."""
    rng, runs, columns = np.random.default_rng(0), 200, []
    true = np.clip(rng.normal(0.5, spread, (runs, 3)), 0, 1)
    for run, seeds in enumerate(rng.binomial(rows, true)):
        columns += [rate("clean_accuracy", int(k), rows, defense=str(run), seed=s, **CELL) for s, k in enumerate(seeds)]
    table = tidy(columns)
    own, every = (
        over_seeds(table, population=population).set_index("defense").loc[map(str, range(runs)), ["low", "high"]]
        for population in (False, True)
    )

    def missed(ends: pd.DataFrame, mean: Any) -> int:
        low, high = ends.to_numpy(dtype=float).T
        return int(((mean < low) | (mean > high)).sum())

    most = binom.ppf(0.9999, runs, 0.05)
    assert missed(own, true.mean(1)) <= most
    assert missed(every, 0.5) <= most
    assert (missed(own, 0.5) > most) == (rows == 20_000 and spread > 0)
