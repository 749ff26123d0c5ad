"""How a word with control characters is displayed, for Latin letters."""

import unicodedata
from typing import NamedTuple

from aisec_lab.attacks.text.invisible import BACKSPACE, LRI, LRO, PDF, PDI, RLO


class BidiRun(NamedTuple):
    """A run of characters between a control that opens a direction and the one that closes it.

    Args:
        level: embedding level; even is left to right, odd right to left.
        overrides: whether letters take this direction and not their own.
        is_isolate: whether PDI closes the run, and not PDF.
    """

    level: int = 0
    overrides: bool = False
    is_isolate: bool = False


OPENING = {
    "\N{LEFT-TO-RIGHT EMBEDDING}": BidiRun(0),
    "\N{RIGHT-TO-LEFT EMBEDDING}": BidiRun(1),
    LRO: BidiRun(0, overrides=True),
    RLO: BidiRun(1, overrides=True),
    LRI: BidiRun(0, is_isolate=True),
    "\N{FIRST STRONG ISOLATE}": BidiRun(0, is_isolate=True),
    "\N{RIGHT-TO-LEFT ISOLATE}": BidiRun(1, is_isolate=True),
}


def displayed(word: str) -> str:
    """The visible characters of a word, in display order: backspaces and direction controls are applied.

    Args:
        word: without whitespace; its letters are written from left to right, in a left-to-right line.

    Returns:
        The visible characters, perhaps none.
    """
    kept: list[str] = []
    for character in word:
        if character != BACKSPACE:
            kept.append(character)
        elif kept:
            kept.pop()
    shown = levels("".join(kept))
    for least in range(max((level for _, level in shown), default=0), 0, -1):  # rule L2
        start = 0
        while start < len(shown):
            end = start
            while end < len(shown) and shown[end][1] >= least:
                end += 1
            shown[start:end] = shown[start:end][::-1]
            start = end + 1
    return "".join(character for character, _ in shown)


def levels(word: str) -> list[tuple[str, int]]:
    """Embedding levels by the Unicode bidirectional algorithm (UAX 9, rules X1 to X8 and I1 to I2).

    Args:
        word: without backspaces.

    Returns:
        Characters with their levels, without controls. Each end of an isolate is an empty string at the level of the
        surrounding run, which separates the text on its two sides.
    """
    runs, characters = [BidiRun()], []
    for character in word:
        if opening := OPENING.get(character):
            level = runs[-1].level + 1
            if opening.is_isolate:
                characters.append(("", runs[-1].level))
            runs.append(opening._replace(level=level + (level % 2 != opening.level)))
        elif character == PDF and len(runs) > 1 and not runs[-1].is_isolate:
            runs.pop()
        elif character == PDI and any(run.is_isolate for run in runs):
            while not runs.pop().is_isolate:
                pass
            characters.append(("", runs[-1].level))
        elif unicodedata.category(character) != "Cf":
            own = runs[-1].level % 2 == 1 and not runs[-1].overrides  # a letter that keeps its direction is a level up
            characters.append((character, runs[-1].level + own))
    return characters
