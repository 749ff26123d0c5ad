"""Sentences from numbers: the parts that the notebooks' texts are put together from."""

from collections.abc import Iterable, Mapping
from typing import Any


def paragraph(*sentences: str) -> str:
    """Sentences as one paragraph.

    Args:
        sentences: each with its full stop; an empty one is left out, so that a sentence may depend on a condition.

    Returns:
        The sentences, a space between any two.
    """
    return " ".join(sentence for sentence in sentences if sentence)


def interval(row: Any, digits: int = 1) -> str:
    """The 95 % interval of a rate, in per cent.

    Args:
        row: a row of the table, or anything with `low` and `high` by name (a mapping, a Series, a named tuple).
        digits: behind the decimal point.

    Returns:
        For example "95 % interval 3.1% to 4.5%".
    """
    low, high = (_of(row, name) for name in ("low", "high"))
    return f"95 % interval {low:.{digits}%} to {high:.{digits}%}"


def rate_with_interval(row: Any, digits: int = 1) -> str:
    """A rate, set in bold, with its 95 % interval.

    Args:
        row: a row of the table, or anything with `value`, `low` and `high` by name.
        digits: behind the decimal point.

    Returns:
        For example "**3.8%** (95 % interval 3.1% to 4.5%)".
    """
    return f"**{_of(row, 'value'):.{digits}%}** ({interval(row, digits)})"


def count_with_rate(count: int, n: int, noun: str = "", digits: int = 1) -> str:
    """A count, the number that it is a part of, and its share in per cent.

    Args:
        count: from 0 to n.
        n: at least 1.
        noun: what is counted, in the plural; nothing by default.
        digits: of the percentage, behind the decimal point.

    Returns:
        For example "3 of 8 rows (37.5%)".

    Raises:
        ValueError: n below 1, or a count outside 0..n.
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"count must lie in 0..n with n >= 1, got {count} of {n}")
    return f"{count} of {n}{noun and ' '}{noun} ({count / n:.{digits}%})"


def percentage_points(difference: float, digits: int = 1) -> str:
    """A difference of two shares in percentage points, with its sign.

    Args:
        difference: from -1 to 1.
        digits: behind the decimal point.

    Returns:
        For example "+1.5 points".
    """
    return f"{100 * difference:+.{digits}f} points"


def plural(count: int, noun: str) -> str:
    """A count and its noun, in the singular for a count of 1 and in the plural otherwise.

    Args:
        count: how many.
        noun: in the singular; its plural must end in an added s.

    Returns:
        For example "1 seed" or "3 seeds".
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def enumerated(items: Iterable[str], empty: str = "none") -> str:
    """Items as an English list.

    Args:
        items: in the order of the list.
        empty: the result for no items.

    Returns:
        For example "a", "a and b" or "a, b and c".
    """
    *first, last = list(items) or [empty]
    return f"{', '.join(first)} and {last}" if first else last


def listed(names: Iterable[object], empty: str = "none") -> str:
    """Names, each set as code, as an English list.

    Args:
        names: in the order of the list; each is converted by `str`.
        empty: the result for no names.

    Returns:
        For example "`a`, `b` and `c`".
    """
    return enumerated((f"`{name}`" for name in names), empty)


def listed_with(values: Mapping[str, Any], form: str = "{:.1%}", empty: str = "none") -> str:
    """Names, each set as code, with their values in brackets, as an English list.

    Args:
        values: by name, in the order of the list.
        form: format of a value, in the syntax of `str.format`.
        empty: the result for no names.

    Returns:
        For example "`a` (1.0%) and `b` (3.5%)".
    """
    return enumerated((f"`{name}` ({form.format(value)})" for name, value in values.items()), empty)


def _of(row: Any, name: str) -> float:
    """A number of a row, by attribute or by key."""
    return float(row[name] if isinstance(row, Mapping) else getattr(row, name))
