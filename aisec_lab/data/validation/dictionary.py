"""A data dictionary: what each column may hold, written by people before the first delivery comes."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from aisec_lab.data.validation.layout import Layout

TYPES = ("number", "integer", "category")
YES, NO = ("true", "yes", "1"), ("false", "no", "0", "")
BETWEEN = "|"  # values in a cell of a CSV


@dataclass(frozen=True)
class Field:
    """A column.

    Args:
        column: its name.
        type: "number", "integer" or "category".
        unit: of a number; for people to read, kept on the card.
        min, max: of a number, both allowed; none where there is no limit.
        values: of a category, all that are allowed.
        nullable: whether a cell may be empty.
    """

    column: str
    type: str
    unit: str = ""
    min: float = -math.inf
    max: float = math.inf
    values: tuple[str, ...] = ()
    nullable: bool = False

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise ValueError(f"{self.column}: type is one of {', '.join(TYPES)}, got {self.type!r}")
        limited = self.min > -math.inf or self.max < math.inf
        if self.type == "category" and (limited or not self.values):
            raise ValueError(f"{self.column}: a category has values and no min or max")
        if self.type != "category" and self.values:
            raise ValueError(f"{self.column}: a {self.type} has min and max and no values: make it a category")
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"{self.column}: values {list(self.values)} are not all different")
        if not self.min <= self.max:
            raise ValueError(f"{self.column}: min {self.min} is above max {self.max}")


def read_dictionary(path: Path) -> tuple[Field, ...]:
    """The columns that a dictionary names, in its order.

    Args:
        path: a YAML file, a list of mappings with the fields of `Field`; or a CSV file with those as its first line,
            values separated by `|` and nullable "yes" or "no". Cells may be empty, and columns missing.

    Returns:
        A `Field` for each column.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another file, an unknown field, or a value that cannot be.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no dictionary at {path}")
    try:
        if path.suffix.lower() == ".csv":
            rows: Any = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
        elif path.suffix.lower() in (".yaml", ".yml"):
            rows = yaml.safe_load(path.read_text(encoding="utf-8"))
        else:
            raise ValueError("it ends in .yaml or .csv")
        if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
            raise ValueError("it is a list, with one mapping for each column")
        found = tuple(_field(row) for row in rows)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name} is no data dictionary: {' '.join(str(error).split())}") from error
    names = [field.column for field in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path.name} is no data dictionary: columns {repeated} are there twice")
    return found


def layout_of(dictionary: Sequence[Field], label: str) -> Layout:
    """What a row is made of by a dictionary; the classes are the values of the column `label`."""
    classes = next((field.values for field in dictionary if field.column == label), ())
    if not classes:
        raise ValueError(f"the dictionary has no category {label!r}, whose values are the classes: add it, or --label")
    if next(field for field in dictionary if field.column == label).nullable:
        raise ValueError(f"the label {label!r} is nullable: a row without a class cannot be learned from")
    inputs = [field for field in dictionary if field.column != label]
    return Layout(
        tuple(field.column for field in inputs),
        {field.column: field.values for field in inputs if field.type == "category"},
        label,
        classes,
        (len(inputs),),
        limits={field.column: (field.min, field.max) for field in inputs if field.type != "category"},
        nullable=tuple(field.column for field in inputs if field.nullable),
        whole=tuple(field.column for field in inputs if field.type == "integer"),
        units={field.column: field.unit for field in inputs if field.unit},
    )


def _field(row: dict[Any, Any]) -> Field:
    known = {field.name for field in fields(Field)}
    if unknown := [str(key) for key in row if key not in known]:
        raise ValueError(f"unknown {unknown}: a column has {', '.join(sorted(known))}")
    given = {key: value for key, value in row.items() if value is not None and value != ""}
    if absent := {"column", "type"} - set(given):
        raise ValueError(f"{given}: {' and '.join(sorted(absent))} missing")
    name = str(given["column"])
    for key in ("min", "max"):
        if key in given:
            given[key] = _number(given[key], f"{name}: {key}")
    values = given.get("values", ())
    given["values"] = tuple(values.split(BETWEEN) if isinstance(values, str) else map(_word, values))
    nullable = str(given.get("nullable", "")).lower()
    if nullable not in YES + NO:
        raise ValueError(f"{name}: nullable is yes or no, got {given['nullable']!r}")
    return Field(**{**given, "column": name, "unit": str(given.get("unit", "")), "nullable": nullable in YES})


def _number(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise ValueError(f"{what} is a number, got {value!r}")
    return number


def _word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"the value {value!r} is no word: put it in quotation marks")
    return str(value)
