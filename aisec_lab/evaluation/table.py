"""The table of all measurements: one row for each, see docs/evaluation.md."""

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
    "attack": "string",  # "none" without an attack, "worst_case" over all attacks of a level
    "knob": "string",  # the parameter that was varied
    "level": "Float64",  # its value
    "seed": "Int64",
    "metric": "string",
    "value": "Float64",
    "low": "Float64",  # a 95 % interval
    "high": "Float64",
    "n": "Int64",
    "queries": "Float64",  # forward passes of one example, on average
    "trusted": "boolean",  # whether the diagnosis of a robust accuracy raised no doubt
    "config": "string",  # first digits of the sha256 of the configuration that the cell could see
}
KEY = ["study", "data", "model", "defense", "attack", "knob", "level", "seed", "metric"]


def rate(metric: str, successes: int, n: int, **cell: Any) -> dict[str, Any]:
    """A row of the table for a rate, with its exact 95 % interval (Clopper & Pearson, 1934).

    Args:
        metric: name of the rate.
        successes: how many of the n rows count.
        n: number of rows, at least 1.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        `metric`, `value`, `low`, `high`, `n`, and the other columns.
    """
    low, high = clopper_pearson(successes, n)
    return {"metric": metric, "value": successes / n, "low": low, "high": high, "n": n} | cell


def tidy(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Make the table: all columns in their types and order, rows sorted by their key.

    Args:
        rows: dicts from columns of the table to values; missing columns become NA.

    Returns:
        The table.

    Raises:
        ValueError: an unknown column, a value of a wrong type, or a measurement that occurs twice.
    """
    frame = pd.DataFrame(list(rows))
    check_columns(set(frame.columns) | set(TYPES), "these rows")
    table = typed(frame.reindex(columns=list(TYPES)), "these rows").sort_values(KEY, ignore_index=True)
    if table.duplicated(KEY).any():
        raise ValueError(f"measured twice: {table[table.duplicated(KEY)][KEY].iloc[0].to_dict()}; keep one")
    return table


def check_columns(columns: set[str], where: object) -> None:
    """Raise a ValueError that names missing and unknown columns, if there are any; `where` names the source."""
    missing, unknown = sorted(set(TYPES) - columns), sorted(columns - set(TYPES))
    if missing or unknown:
        raise ValueError(
            f"{where}: columns missing: {missing or 'none'}, unknown: {unknown or 'none'}; "
            "a table is written by `write_table` (run `aisec repro`)"
        )


def typed(table: pd.DataFrame, where: object) -> pd.DataFrame:
    """Convert the columns to their types, in their order; a ValueError names a column that cannot be converted."""
    columns = {}
    for name, kind in TYPES.items():
        try:
            columns[name] = table[name].astype(kind)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: column {name!r} cannot be {kind} ({error}): correct what is in it") from error
    return pd.DataFrame(columns)


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as Parquet, atomically.

    Args:
        table: the table, as `tidy` returns it.
        path: the file.

    Raises:
        ValueError: missing or unknown columns.
    """
    check_columns(set(table.columns), "the table")
    with written_beside(Path(path)) as beside:
        table.to_parquet(beside, index=False)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Args:
        path: the file.

    Returns:
        The table, with the types of its columns checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has other columns or types.
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
    """The mean of each measurement over seeds, with the hull of the seeds' intervals.

    The hull is about the seeds that were run: it covers the mean of their true values with a probability of at least
    95 %, since each interval covers its own. For other seeds it may be too narrow. With three seeds whose accuracies
    spread three times as far as their rows alone explain, it covers the mean over all seeds in 96 of 100 cases; at ten
    times, in 85.

    Args:
        table: the table, or a part of it.
        population: widen the hull to Student's interval for the mean over all seeds, which assumes values that are
            about normal. It may exceed 0 and 1, by far with two seeds. No interval over few seeds foresees a failure
            that none of them had: if one training in five collapses, three seeds miss it in half of all cases.

    Returns:
        One row for each measurement: the columns of KEY without `seed`, `value` (the mean), `low` and `high`, `n` (the
        smallest number of rows of a seed) and `seeds`.

    Raises:
        ValueError: `population` with fewer than two seeds of a measurement.
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
