"""Columns of words that look like something else: what stands in them is then compared as words, and should not be."""

import re
from collections.abc import Iterable

from aisec_lab.data.validation.cells import EXACT
from aisec_lab.data.validation.layout import Layout

LARGE = "whole numbers of 2**53 and more, which float64 cannot hold: leave out what only names a row"
SHARE = 0.5  # of the words of a column
DATE = re.compile(
    r"\d{4}([-/.])\d{1,2}\1\d{1,2}([T ]\d{1,2}:\d{2}.*)?|\d{1,2}([-/.])\d{1,2}\3(\d{4}|\d{2})( \d{1,2}:\d{2}.*)?"
)
WHOLE = re.compile(r"[+-]?\d{16,}")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
COMMAS = re.compile(r"[+-]?\d+(,\d+)+|[+-]?\d{1,3}([., ']\d{3})+([.,]\d+)?")
SIGNS = re.compile(r"[€$£]\s*[+-]?\d[\d.,]*|[+-]?\d[\d.,]*\s*[%€$£‰]|[+-]?\d[\d.,]* [^\W\d]{1,4}")


def seems(words: Iterable[str]) -> str | None:
    """What at least half of the words look like, and how to fix that; None if they are words."""
    words = [word.strip() for word in words if word.strip()]
    kinds = {
        "dates: give a number, such as days since a day": lambda word: DATE.fullmatch(word),
        LARGE: lambda word: WHOLE.fullmatch(word) and abs(int(word)) >= EXACT,
        "numbers with commas or spaces in them: write 1234.5": lambda word: COMMAS.fullmatch(word),
        "numbers with a sign or unit: give the numbers alone": lambda word: SIGNS.fullmatch(word),
        "numbers and words: leave a cell empty where there is no number": lambda word: NUMBER.fullmatch(word),
    }
    found = ((sum(bool(fits(word)) for word in words), kind) for kind, fits in kinds.items())
    return next((kind for count, kind in found if words and count >= SHARE * len(words)), None)


def doubtful(layout: Layout) -> dict[str, str]:
    """The columns of words that look like something else, and like what."""
    found = {name: seems(words) for name, words in layout.words.items()}
    return {name: kind for name, kind in found.items() if kind}
