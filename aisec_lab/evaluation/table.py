"""The one tidy table: every measurement of every study is a row of it."""

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from aisec_lab.core.files import written_beside
from aisec_lab.core.intervals import clopper_pearson

TYPES = {
    "study": "string",
    "data": "string",
    "model": "string",
    "defense": "string",
    "attack": "string",  # "none" where nothing attacks, "worst_case" over all attacks of a level
    "knob": "string",  # what was turned
    "level": "Float64",  # and how far
    "seed": "Int64",
    "metric": "string",
    "value": "Float64",
    "low": "Float64",  # a 95 % interval
    "high": "Float64",
    "n": "Int64",
    "queries": "Float64",  # forward passes of one example, on average
    "trusted": "boolean",  # the verdict on a robust accuracy
    "config": "string",  # first digits of the sha256 of the configuration that the cell could see
}
KEY = ["study", "data", "model", "defense", "attack", "knob", "level", "seed", "metric"]


def rate(metric: str, successes: int, n: int, **cell: Any) -> dict[str, Any]:
    """A row of the table for a rate, with its Clopper-Pearson interval; `cell` holds the other columns."""
    low, high = clopper_pearson(successes, n)
    return {"metric": metric, "value": successes / n, "low": low, "high": high, "n": n} | cell


def tidy(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as the table: every column, in its type and order, sorted.

    Args:
        rows: mappings from some of the table's columns to values; what is missing becomes NA.

    Returns:
        The table.

    Raises:
        ValueError: a column that the table does not have, a value of another type, or a measurement made twice.
    """
    frame = pd.DataFrame(list(rows))
    check_columns(set(frame.columns) | set(TYPES), "these rows")
    table = typed(frame.reindex(columns=list(TYPES)), "these rows").sort_values(KEY, ignore_index=True)
    if table.duplicated(KEY).any():
        raise ValueError(f"measured twice: {table[table.duplicated(KEY)][KEY].iloc[0].to_dict()}; keep one")
    return table


def check_columns(columns: set[str], where: object) -> None:
    """Refuse a set of columns that is not the table's, with a ValueError that names what is missing or unknown."""
    missing, unknown = sorted(set(TYPES) - columns), sorted(columns - set(TYPES))
    if missing or unknown:
        raise ValueError(
            f"{where}: columns missing: {missing or 'none'}, unknown: {unknown or 'none'}; "
            "a table is written by `write_table` (run `aisec repro`)"
        )


def typed(table: pd.DataFrame, where: object) -> pd.DataFrame:
    """The table's columns in the table's types, or a ValueError that names the one that cannot be."""
    columns = {}
    for name, kind in TYPES.items():
        try:
            columns[name] = table[name].astype(kind)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: column {name!r} cannot be {kind} ({error}): correct what is in it") from error
    return pd.DataFrame(columns)


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as Parquet, whole or not at all; ValueError where its columns are not the table's."""
    check_columns(set(table.columns), "the table")
    with written_beside(Path(path)) as beside:
        table.to_parquet(beside, index=False)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged, or its columns or their types are not the table's.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no table at {path}: run `aisec repro`")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no Parquet file, or half of one ({error}): run `aisec repro`") from error
    check_columns(set(table.columns), path)
    return typed(table, path)


def over_seeds(table: pd.DataFrame, *, population: bool = False) -> pd.DataFrame:
    """The mean over seeds of each measurement, inside an envelope of the seeds' intervals.

    The envelope is about the seeds that were run: it covers the mean of their true values with at least 95 %, as each
    of their intervals covers its own. Of other seeds it may say too little: with three, whose accuracies spread three
    times as far as their rows alone explain, it covers the mean over all seeds in 96 of 100 cases, at ten times in 85.

    Args:
        table: the table, or a part of it.
        population: widen the envelope to Student's interval for the mean over all seeds, which holds where their values
            are about normal. It may pass 0 and 1, with two seeds by far. No interval of few seeds foresees a failure
            that none of them had: one training in five that collapses is missed by three in half of all cases.

    Returns:
        One row for each measurement: KEY without `seed`, `value` (the mean), `low` and `high` (the lowest and the
        highest end among the seeds), `n` (rows a seed) and `seeds`.

    Raises:
        ValueError: `population` of a measurement with fewer than two seeds.
    """
    groups = table.groupby([name for name in KEY if name != "seed"], dropna=False, sort=False)
    found = groups.agg(
        value=("value", "mean"), low=("low", "min"), high=("high", "max"), n=("n", "min"), seeds=("seed", "nunique")
    ).reset_index()
    if population:
        if found.seeds.min() < 2:
            raise ValueError("one seed says nothing of others: run two at least, better five, or leave population out")
        spread = groups.value.std().to_numpy(dtype=float, na_value=math.nan) / found.seeds**0.5
        reach = stdtrit(found.seeds - 1, 0.975) * spread
        found["low"] = found.low.clip(upper=found.value - reach)
        found["high"] = found.high.clip(lower=found.value + reach)
    return found
