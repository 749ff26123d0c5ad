"""Sentences from numbers."""

from typing import NamedTuple

import pandas as pd
import pytest

from aisec_lab.evaluation import (
    count_with_rate,
    enumerated,
    interval,
    listed,
    listed_with,
    paragraph,
    percentage_points,
    plural,
    rate,
    rate_with_interval,
)


class Row(NamedTuple):
    value: float
    low: float
    high: float


def test_a_paragraph_leaves_out_what_is_empty():
    """One space between any two sentences, none at the ends."""
    assert paragraph("One.", "", "Two.", "") == "One. Two."
    assert paragraph() == ""


@pytest.mark.parametrize("kind", [dict, pd.Series, lambda row: Row(**row)], ids=["mapping", "series", "tuple"])
def test_a_rate_comes_with_its_interval(kind):
    """Whatever kind of row holds the numbers; digits are those asked for."""
    row = kind({"value": 0.0375, "low": 0.031, "high": 0.0449})
    assert rate_with_interval(row) == "**3.8%** (95 % interval 3.1% to 4.5%)"
    assert interval(row, 0) == "95 % interval 3% to 4%"


def test_a_row_of_the_table_is_such_a_row():
    """As `rate` makes it, and as a frame holds it."""
    row = rate("asr", 3, 10)
    assert rate_with_interval(row) == "**30.0%** (95 % interval 6.7% to 65.2%)"
    assert rate_with_interval(next(pd.DataFrame([row]).itertuples())) == rate_with_interval(row)


def test_a_count_comes_with_its_share():
    """None and all of them too; a count that is none is refused."""
    assert count_with_rate(3, 8) == "3 of 8 (37.5%)"
    assert (count_with_rate(0, 3, digits=0), count_with_rate(3, 3, digits=0)) == ("0 of 3 (0%)", "3 of 3 (100%)")
    assert count_with_rate(10, 200, "rows") == "10 of 200 rows (5.0%)"
    for count, n in [(4, 3), (-1, 3), (0, 0)]:
        with pytest.raises(ValueError, match="count must lie in 0..n"):
            count_with_rate(count, n)


def test_differences_have_a_sign_and_counts_a_noun():
    """In percentage points; an s wherever it is not one."""
    assert [percentage_points(d) for d in (0.015, -0.2, 0.0)] == ["+1.5 points", "-20.0 points", "+0.0 points"]
    assert percentage_points(0.0149, 0) == "+1 points"
    assert [plural(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


def test_lists_are_english():
    """A comma between all but the last two; a word where there is nothing."""
    assert [enumerated(items) for items in ([], ["a"], "ab", "abc")] == ["none", "a", "a and b", "a, b and c"]
    assert listed(["x", "y", "z"]) == "`x`, `y` and `z`"
    assert listed([], "no attack") == "no attack"
    assert listed_with({"x": 0.01, "y": 0.355}) == "`x` (1.0%) and `y` (35.5%)"
    assert listed_with({"x": 2.0}, "{:g} bits") == "`x` (2 bits)"
    assert listed_with({}, empty="nobody") == "nobody"
