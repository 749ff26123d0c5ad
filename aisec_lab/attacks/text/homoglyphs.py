"""Homoglyphs: letters of other scripts that look like Latin ones."""

import random
from dataclasses import dataclass

from aisec_lab.data import Texts

LOOKALIKES = {  # Latin letter: twins in most typefaces, as are their capitals (from Unicode TS 39, confusables)
    "a": "\N{CYRILLIC SMALL LETTER A}\N{GREEK SMALL LETTER ALPHA}",
    "c": "\N{CYRILLIC SMALL LETTER ES}\N{GREEK LUNATE SIGMA SYMBOL}",
    "e": "\N{CYRILLIC SMALL LETTER IE}",
    "i": "\N{CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I}\N{GREEK SMALL LETTER IOTA}",
    "j": "\N{CYRILLIC SMALL LETTER JE}",
    "k": "\N{GREEK SMALL LETTER KAPPA}",
    "o": "\N{CYRILLIC SMALL LETTER O}\N{GREEK SMALL LETTER OMICRON}\N{ARMENIAN SMALL LETTER OH}",
    "p": "\N{CYRILLIC SMALL LETTER ER}\N{GREEK SMALL LETTER RHO}",
    "q": "\N{CYRILLIC SMALL LETTER QA}",
    "s": "\N{CYRILLIC SMALL LETTER DZE}",
    "u": "\N{ARMENIAN SMALL LETTER SEH}",
    "v": "\N{CYRILLIC SMALL LETTER IZHITSA}",
    "w": "\N{CYRILLIC SMALL LETTER WE}",
    "x": "\N{CYRILLIC SMALL LETTER HA}\N{GREEK SMALL LETTER CHI}",
    "y": "\N{CYRILLIC SMALL LETTER U}",
}


@dataclass(frozen=True)
class Homoglyphs:
    """Replace one letter by a homoglyph (Boucher et al., 2022, arXiv:2106.09898, section IV-B).

    A person reads the same word; a model with a vocabulary sees another one. A source of `Replacements`;
    docs/text-attacks.md.
    """

    def learn(self, train: Texts) -> "Homoglyphs":
        """The same: nothing is learned."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """The token with each of its letters replaced by each of its homoglyphs; nothing is drawn."""
        return [
            token[:place] + twin + token[place + 1 :]
            for place, letter in enumerate(token)
            for twin in LOOKALIKES.get(letter, "")
        ]
