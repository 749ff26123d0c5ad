"""Sources of replacements for a word."""

import random
from typing import Protocol

from aisec_lab.data import Texts


class Replacements(Protocol):
    """A source of replacements for a word: a frozen dataclass of settings.

    Contract: docs/text-attacks.md.
    """

    def learn(self, train: Texts) -> "Replacements":
        """A source that has learned from the victim's training texts; the same one if it learns nothing."""
        ...

    def options(self, token: str, rng: random.Random) -> list[str]:
        """List replacements for a token.

        Args:
            token: a word in lower case, without punctuation around it.
            rng: source of randomness, for sources that draw.

        Returns:
            Different words other than the token, in lower case, without whitespace and not empty; may be none.

        Raises:
            ValueError: the source has to learn first.
        """
        ...
