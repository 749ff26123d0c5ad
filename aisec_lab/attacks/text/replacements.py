"""What may stand in the place of a word."""

import random
from typing import Protocol

from aisec_lab.data import Texts


class Replacements(Protocol):
    """A source of replacements for a word: a frozen dataclass of settings."""

    def learn(self, train: Texts) -> "Replacements":
        """The same with what it learns from the victim's training texts, if anything."""
        ...

    def options(self, token: str, rng: random.Random) -> list[str]:
        """Other words for a token, no two the same, in lower case, each without whitespace and not empty."""
        ...
