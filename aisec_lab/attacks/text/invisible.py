"""Characters that nobody sees: a reader's word stays, a model's becomes another (Boucher et al., 2022).

Bad Characters, arXiv:2106.09898, section IV: besides homoglyphs there are three kinds, one class each. Here they go
into one word at a time; characters that count as whitespace (the carriage return among them) would cut it in two, and
a word's first letter stays where it is, so that its capital does.
"""

import random
import string
from dataclasses import dataclass

from aisec_lab.data import Texts

ZERO_WIDTH = "\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
BACKSPACE = "\b"
LRO, RLO, LRI = "\N{LEFT-TO-RIGHT OVERRIDE}", "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{LEFT-TO-RIGHT ISOLATE}"
PDF, PDI = "\N{POP DIRECTIONAL FORMATTING}", "\N{POP DIRECTIONAL ISOLATE}"


@dataclass(frozen=True)
class InvisibleCharacters:
    """One character without width comes after a letter (section IV-A)."""

    def learn(self, train: Texts) -> "InvisibleCharacters":
        """Nothing is learned."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """Each of the three in each place but the first."""
        return [token[:place] + each + token[place:] for place in range(1, len(token) + 1) for each in ZERO_WIDTH]


@dataclass(frozen=True)
class Reorderings:
    """Two neighbours are stored the other way round, among controls that show them as they were (section IV-C).

    The controls are those of the Unicode bidirectional algorithm (UAX 9), in the paper's order, so that the text
    around them does not matter.
    """

    def learn(self, train: Texts) -> "Reorderings":
        """Nothing is learned."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """Every pair of different neighbours after the first letter."""
        found = []
        for place in range(1, len(token) - 1):
            first, second = token[place], token[place + 1]
            if first != second:
                pair = f"{LRO}{LRI}{RLO}{LRI}{second}{PDI}{LRI}{first}{PDI}{PDF}{PDI}{PDF}"
                found.append(token[:place] + pair + token[place + 2 :])
        return found


@dataclass(frozen=True)
class Deletions:
    """A letter comes with a backspace after it, which takes it away where the text is shown (section IV-D)."""

    def learn(self, train: Texts) -> "Deletions":
        """Nothing is learned."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """A random letter in each place but the first."""
        return [
            token[:place] + rng.choice(string.ascii_lowercase) + BACKSPACE + token[place:]
            for place in range(1, len(token) + 1)
        ]
