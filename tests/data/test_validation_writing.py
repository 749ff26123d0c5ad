"""Separated values as people write them: read as they were meant, or refused with the mend; and data dictionaries."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from aisec_lab.data.validation import Field, Ingestion, Reference, RefusedError, read_dictionary
from aisec_lab.data.validation.dictionary import layout_of
from aisec_lab.data.validation.layout import Layout
from aisec_lab.data.validation.reference import allowed_of
from aisec_lab.data.validation.seeming import seems
from aisec_lab.data.validation.tables import TableSource

N = 60
RANDOM = np.random.default_rng(0)
VALUES = np.round(RANDOM.normal(size=(N, 2)) * 1000, 2)
NAMES, LABELS = ("a", "b", "label"), RANDOM.choice(["yes", "no"], N)


def text(separator: str = ",", comma: bool = False, end: str = "\n", cell: Callable[[float], str] = repr) -> bytes:
    """A table of two columns of numbers and a label."""

    def written(value: float) -> str:
        return cell(float(value)).replace(".", ",") if comma else cell(float(value))

    rows = [[written(value) for value in values] + [str(label)] for values, label in zip(VALUES, LABELS, strict=True)]
    return (end.join(separator.join(row) for row in [list(NAMES), *rows]) + end).encode()


def read(path: Path) -> tuple[Layout, np.ndarray, np.ndarray]:
    """Its layout, numbers and classes."""
    table = TableSource(path)
    layout = table.layout()
    chunks = list(table.chunks(layout))
    return layout, np.concatenate([chunk.x for chunk in chunks]), np.concatenate([chunk.y for chunk in chunks])


WRITTEN: dict[str, tuple[str, bytes, list[str]]] = {
    "as most are": ("in.csv", text(), []),
    "capitals": ("in.CSV", text(), []),
    "lines as on Windows": ("in.csv", text(end="\r\n"), []),
    "a mark before the first name": ("in.csv", b"\xef\xbb\xbf" + text(), []),
    "tabs": ("in.tsv", text("\t"), ["cells are separated by tabs"]),
    "tabs in a csv": ("in.csv", text("\t"), ["cells are separated by tabs"]),
    "semicolons": ("in.csv", text(";"), ["cells are separated by semicolons"]),
    "decimal commas": (
        "in.csv",
        text(";", comma=True),
        ["cells are separated by semicolons", "numbers have decimal commas"],
    ),
    "gzip": ("in.csv.gz", gzip.compress(text()), []),
    "gzip of tabs, in capitals": ("in.TSV.GZ", gzip.compress(text("\t")), ["cells are separated by tabs"]),
    "gzip by another name": ("in.csv", gzip.compress(text()), []),
    "gzip in two pieces": ("in.csv.gz", gzip.compress(text()[:900]) + gzip.compress(text()[900:]), []),
}


@pytest.mark.parametrize("case", WRITTEN.values(), ids=WRITTEN)
def test_however_it_is_written_the_numbers_are_the_same(case: tuple[str, bytes, list[str]], tmp_path: Path) -> None:
    """And what is not as in most files is said."""
    name, content, remarks = case
    (tmp_path / name).write_bytes(content)
    layout, x, y = read(tmp_path / name)
    assert (layout.columns, layout.words, layout.classes) == (("a", "b"), {}, ("no", "yes"))
    np.testing.assert_array_equal(x, VALUES)
    np.testing.assert_array_equal(y, LABELS == "yes")
    assert TableSource(tmp_path / name).remarks(layout) == remarks


def test_a_point_between_thousands_is_no_decimal_point(tmp_path: Path) -> None:
    """Where most numbers have decimal commas, 1.234 is unreadable and not a little more than one."""
    lines = ["a;b;label", *(f"{i},5;{i},25;{'no' if i % 2 else 'yes'}" for i in range(50))]
    (tmp_path / "in.csv").write_text("\n".join([*lines, "1.234;1,5;no", "1.234,5;1,5;no"]) + "\n")
    table = TableSource(tmp_path / "in.csv")
    unreadable = np.concatenate([chunk.unreadable for chunk in table.chunks(table.layout())])
    assert np.flatnonzero(unreadable).tolist() == [50, 51]


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "lines as on old Macs": ("in.csv", text(end="\r"), r"old Macs: write LF \(`tr"),
    "UTF-16": ("in.csv", text().decode().encode("utf-16"), "UTF-16: save it as UTF-8"),
    "a workbook": ("in.csv", b"PK\x03\x04" + bytes(99), "save its sheet as CSV"),
    "Parquet by another name": ("in.csv", b"PAR1" + bytes(99), "name it .parquet"),
    "gzip that was cut": ("in.csv.gz", gzip.compress(text())[:-20], "damaged gzip.*send it again"),
    "gzip with a wrong sum": ("in.csv.gz", gzip.compress(text())[:-8] + bytes(8), "damaged gzip.*send it again"),
    "numbers that lose digits": (
        "in.csv",
        b"id,a,label\n" + b"".join(b"%d,%d,%d\n" % (10**17 + i, i, i % 2) for i in range(1500)),
        r"column id holds over 1000 different words, these look like whole numbers of 2\*\*53",
    ),
    "days": (
        "in.csv",
        b"day,a,label\n"
        + b"".join(b"%s,%d,%d\n" % (str(np.datetime64(i, "D")).encode(), i, i % 2) for i in range(1500)),
        "column day holds over 1000 different words, these look like dates: give a number",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_with_its_mend(case: tuple[str, bytes, str], tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / case[0]).write_bytes(case[1])
    with pytest.raises(RefusedError, match=case[2]) as error:
        read(tmp_path / case[0])
    assert "\n" not in str(error.value)


def test_types_of_parquet_that_are_no_numbers_are_refused_with_their_mend(tmp_path: Path) -> None:
    """Days are what people have most often."""
    days = np.arange(5).astype("datetime64[D]")
    parquet.write_table(pa.table({"day": days, "label": list("abcde")}), tmp_path / "in.parquet")
    with pytest.raises(
        RefusedError, match=r"column day has type date32\[day\]: give numbers, such as days since a day"
    ):
        TableSource(tmp_path / "in.parquet")


def test_identifiers_of_parquet_lose_digits_too(tmp_path: Path) -> None:
    """A whole column of them is refused by its name; a few large numbers are faults of their rows."""
    for large, refused in ((100, True), (3, False)):
        numbers = np.where(np.arange(100) < large, 10**17, 0) + np.arange(100)
        parquet.write_table(pa.table({"id": numbers, "label": ["no", "yes"] * 50}), tmp_path / "in.parquet")
        table = TableSource(tmp_path / "in.parquet")
        if refused:
            with pytest.raises(RefusedError, match=r"'id' holds whole numbers of 2\*\*53 and more, which float64"):
                next(table.chunks(table.layout()))
        else:
            assert next(table.chunks(table.layout())).unreadable.sum() == large


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1,5", "2,25", "17,125"], "numbers with commas"),
        (["1,234", "12,345,678"], "numbers with commas"),
        (["1.234,5", "2.345,75"], "numbers with commas"),
        (["5%", "12 %", "€3.50"], "numbers with a sign or unit"),
        (["12 kg", "3.5 kg"], "numbers with a sign or unit"),
        (["1", "2", "low", "3"], "numbers and words"),
        (["2024-01-31", "2024-02-01"], "dates"),
        (["31.01.2024", "1.2.2024", "?"], "dates"),
        (["2024-01-31T12:00:01Z"], "dates"),
        (["12345678901234567"], "whole numbers of 2\\*\\*53"),
        (["private", "state-gov", "?"], None),
        (["10th", "7th-8th", "hs-grad"], None),
        (["20-30", "30-40", ">40"], None),
        (["v1.2.3", "a,b"], None),
        ([], None),
    ],
    ids=str,
)
def test_what_words_look_like(words: list[str], said: str | None) -> None:
    """At least half of them."""
    found = seems(words)
    assert (found is None) == (said is None)
    assert said is None or (found or "").startswith(said.replace("\\", ""))


def test_numbers_that_became_words_make_no_label_wrong(tmp_path: Path) -> None:
    """Between quoted decimal commas distances mean nothing: that is said, and no row is accused for it."""
    random = np.random.default_rng(1)
    y = random.integers(0, 2, 400)
    x = random.normal(size=(400, 2)) + 4 * y[:, None]
    x[:16] = x[-16:]  # would be repeats and wrong
    y[:16] = 1 - y[-16:]
    lines = [f'"{a:.1f}",{b:.3f},{label}'.replace(".", ",", 1) for (a, b), label in zip(x, y, strict=True)]
    (tmp_path / "in.csv").write_text("a,b,label\n" + "\n".join(lines) + "\n")
    verdict = Ingestion()(tmp_path / "in.csv", "made", tmp_path / "out")
    assert not {"probably mislabelled", "near-duplicate of an earlier row"} & set(verdict.reasons)
    assert verdict.notes == (
        "column a is read as words, which look like numbers with commas or spaces in them: write 1234.5",
    )
    assert "near-duplicates, labels: a may be no words, so distances mean little" in verdict.unchecked


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        ("A,b,label", "1.5,2.5,no", ["'a' is missing ('A' is new: rename it?)", "'A' is new"]),
        ("a,b2,extra,label", "1,2,3,no", ["'b' is missing; ", "'b2' is new", "'extra' is new"]),
        ("b,label,a", "1.5,no,x", ["'a' holds 'x' and the like, where numbers are accepted"]),
        ("a,label", "2024-01-01,no", ["'b' is missing", "'a' holds '2024-01-01' and the like, which look like dates"]),
    ],
)
def test_another_schema_is_explained_column_by_column(header: str, row: str, said: list[str], tmp_path: Path) -> None:
    """All at once, in one line, with what to do."""
    (tmp_path / "in.csv").write_text(f"{header}\n{row}\n{row}\n")
    layout = Layout(("a", "b"), {}, "label", ("no", "yes"), (2,))
    with pytest.raises(RefusedError, match="mend the file, or ingest another schema under another name") as error:
        next(TableSource(tmp_path / "in.csv").chunks(layout))
    assert all(each in str(error.value) for each in said), str(error.value)
    assert str(error.value).count("is missing") == sum("is missing" in each for each in said)


YAML = """\
- {column: age, type: integer, unit: years, min: 0, max: 120}
- {column: income, type: number, min: 0, nullable: true}
- {column: job, type: category, values: [clerk, smith], nullable: true}
- {column: label, type: category, values: ["no", "yes"]}
"""
CSV = """\
column,type,unit,min,max,values,nullable
age,integer,years,0,120,,
income,number,,0,,,yes
job,category,,,,clerk|smith,yes
label,category,,,,no|yes,no
"""


@pytest.mark.parametrize(("name", "content"), [("d.yaml", YAML), ("d.csv", CSV)])
def test_a_dictionary_is_the_rule_of_a_first_delivery_and_of_all_that_follow(
    name: str, content: str, tmp_path: Path
) -> None:
    """Ranges, whole numbers, words, classes and empty cells; the same from YAML and CSV."""
    (tmp_path / name).write_text(content)
    dictionary = read_dictionary(tmp_path / name)
    assert dictionary == (
        Field("age", "integer", "years", 0, 120),
        Field("income", "number", min=0, nullable=True),
        Field("job", "category", values=("clerk", "smith"), nullable=True),
        Field("label", "category", values=("no", "yes")),
    )
    random = np.random.default_rng(0)
    rows = [[str(i % 90), f"{x:.3f}", "clerk" if i % 3 else "smith", "no" if i % 2 else "yes"]
            for i, x in enumerate(random.uniform(0, 1000, 200))]  # fmt: skip
    wrong = {
        3: (0, "130", "out of range (age)"),
        5: (0, "2.5", "unreadable"),
        7: (0, "", "missing (age)"),
        9: (1, "-1", "out of range (income)"),
        11: (2, "baker", "unknown word (job)"),
        13: (3, "maybe", "unknown label"),
    }
    for row, (place, cell, _) in wrong.items():
        rows[row][place] = cell
    for row in (20, 22, 24):
        rows[row][1], rows[row][2] = "", ""
    source = tmp_path / "in.csv"
    source.write_text("\n".join(",".join(row) for row in [["age", "income", "job", "label"], *rows]) + "\n")
    verdict = Ingestion()(source, "made", tmp_path / "out", dictionary=dictionary)
    listed = [line.split(",") for line in (tmp_path / "out/quarantine.csv").read_text().splitlines()[1:]]
    assert {int(row): reason for row, reason in listed} == {row: said for row, (_, _, said) in wrong.items()}
    assert not verdict.unchecked[0].startswith("ranges")
    accepted = parquet.read_table(tmp_path / "out/made/rows.parquet")
    assert accepted["job"].null_count == 3
    assert np.isnan(accepted["income"].to_numpy()).sum() == 3
    card = json.loads((tmp_path / "out/made/card.json").read_text())["table"]
    assert card["units"] == {"age": "years"}
    reference = Reference.read(tmp_path / "out/made")
    assert reference.layout == layout_of(dictionary, "label")
    np.testing.assert_array_equal(reference.allowed, allowed_of(reference.layout))
    again = Ingestion(allow_drift=True)(source, "made", tmp_path / "again", against=tmp_path / "out/made")
    assert again.quarantined == len(wrong)
    with pytest.raises(ValueError, match="a dictionary is for a first delivery"):
        Ingestion()(source, "made", tmp_path / "x", against=tmp_path / "out/made", dictionary=dictionary)


class Wrong(NamedTuple):
    name: str
    content: str
    said: str


@pytest.mark.parametrize(
    "case",
    [
        Wrong("d.txt", YAML, r"ends in .yaml or .csv"),
        Wrong("d.yaml", "{a: 1}", "a list, with one mapping for each column"),
        Wrong("d.yaml", "- {column: a, type: [", "is no data dictionary"),
        Wrong("d.yaml", "- {column: a}", "type missing"),
        Wrong("d.yaml", "- {column: a, type: text}", "a: type is one of number, integer, category, got 'text'"),
        Wrong("d.yaml", "- {column: a, type: number, range: 3}", r"unknown \['range'\]"),
        Wrong("d.yaml", "- {column: a, type: number, min: low}", "a: min is a number, got 'low'"),
        Wrong("d.yaml", "- {column: a, type: number, min: 2, max: 1}", "a: min 2.0 is above max 1.0"),
        Wrong("d.yaml", "- {column: a, type: number, values: [1]}", "a number has min and max and no values"),
        Wrong("d.yaml", "- {column: a, type: category}", "a category has values"),
        Wrong("d.yaml", "- {column: a, type: category, values: [yes, no]}", "put it in quotation marks"),
        Wrong("d.yaml", "- {column: a, type: category, values: [x, x]}", "not all different"),
        Wrong("d.yaml", "- {column: a, type: number, nullable: maybe}", "nullable is yes or no, got 'maybe'"),
        Wrong("d.yaml", "- {column: a, type: number}\n- {column: a, type: number}", r"columns \['a'\] are there twice"),
        Wrong("d.csv", "column,type,unit\n", "a list, with one mapping for each column"),
    ],
    ids=lambda case: case.said,
)
def test_what_is_no_dictionary_is_refused(case: Wrong, tmp_path: Path) -> None:
    """In one line, by the column."""
    (tmp_path / case.name).write_text(case.content)
    with pytest.raises(ValueError, match=case.said) as error:
        read_dictionary(tmp_path / case.name)
    assert "\n" not in str(error.value)


def test_a_dictionary_names_the_classes() -> None:
    """Else there is nothing to learn."""
    with pytest.raises(ValueError, match="no category 'label', whose values are the classes"):
        layout_of([Field("a", "number")], "label")
    with pytest.raises(ValueError, match="the label 'y' is nullable"):
        layout_of([Field("a", "number"), Field("y", "category", values=("0", "1"), nullable=True)], "y")
