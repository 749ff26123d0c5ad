"""Bad Characters: imperceptible edits of a word (Boucher et al., 2022, arXiv:2106.09898, section IV).

A person reads the same word; a model sees another one. Besides homoglyphs there are three kinds, one class each. Here
each edit is inside one word. Characters that count as whitespace, such as the carriage return, are left out, since they
would split the word. The first letter stays where it is, so that its capital does.
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
    """Insert one zero-width character after a letter.

    Boucher et al. (2022, arXiv:2106.09898, section IV-A). A source of `Replacements`; docs/text-attacks.md.
    """

    def learn(self, train: Texts) -> "InvisibleCharacters":
        """The same: nothing is learned."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """The token with each of the three characters after each letter; nothing is drawn."""
        return [token[:place] + each + token[place:] for place in range(1, len(token) + 1) for each in ZERO_WIDTH]


@dataclass(frozen=True)
class Reorderings:
    """Swap two neighbouring letters and add control characters that display them in the old order.

    Boucher et al. (2022, arXiv:2106.09898, section IV-C). The control characters are those of the Unicode bidirectional
    algorithm (UAX 9), in the paper's order, so that the surrounding text does not matter. A source of `Replacements`;
    docs/text-attacks.md.
    """

    def learn(self, train: Texts) -> "Reorderings":
        """The same: nothing is learned."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """The token with each pair of different neighbours after the first letter swapped; nothing is drawn."""
        found = []
        for place in range(1, len(token) - 1):
            first, second = token[place], token[place + 1]
            if first != second:
                pair = f"{LRO}{LRI}{RLO}{LRI}{second}{PDI}{LRI}{first}{PDI}{PDF}{PDI}{PDF}"
                found.append(token[:place] + pair + token[place + 2 :])
        return found


@dataclass(frozen=True)
class Deletions:
    """Insert a letter and a backspace, which deletes it where the text is displayed.

    Boucher et al. (2022, arXiv:2106.09898, section IV-D). A source of `Replacements`; docs/text-attacks.md.
    """

    def learn(self, train: Texts) -> "Deletions":
        """The same: nothing is learned."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """The token with a letter and a backspace after each letter; the inserted letters are drawn from `rng`."""
        return [
            token[:place] + rng.choice(string.ascii_lowercase) + BACKSPACE + token[place:]
            for place in range(1, len(token) + 1)
        ]
