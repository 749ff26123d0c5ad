"""Misspellings: one random edit of one character."""

import random
import string
from dataclasses import dataclass

from aisec_lab.data import Texts

SWAP, DELETE, INSERT, SUBSTITUTE = range(4)


def misspell(token: str, rng: random.Random) -> str:
    """Swap, delete, insert or substitute one character, each equally likely.

    Args:
        token: at least two characters.
        rng: source of the kind, the position and the letter.

    Returns:
        The misspelling; sometimes the token itself, when equal letters are swapped or a letter replaces itself.
    """
    kind, letter = rng.randrange(4), rng.choice(string.ascii_lowercase)
    place = rng.randrange(len(token) + (kind == INSERT) - (kind == SWAP))
    head, tail = token[:place], token[place:]
    if kind == SWAP:
        return head + tail[1] + tail[0] + tail[2:]
    if kind == INSERT:
        return head + letter + tail
    return head + tail[1:] if kind == DELETE else head + letter + tail[1:]


@dataclass(frozen=True)
class CharacterEdits:
    """Swap, delete, insert or substitute a character (DeepWordBug; Gao et al., 2018, arXiv:1801.04354, section III-C).

    A source of `Replacements`; docs/text-attacks.md. Tokens of one character or without a letter are not replaced.

    Args:
        tries: misspellings that are drawn for a word, at least 1.
    """

    tries: int = 8

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries counts the misspellings of a word and must be at least 1, got {self.tries}")

    def learn(self, train: Texts) -> "CharacterEdits":
        """The same: nothing is learned."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """Up to `tries` different misspellings of a token, drawn from `rng`, sorted."""
        if len(token) < 2 or not any(map(str.isalpha, token)):
            return []
        drawn = [misspell(token, rng) for _ in range(self.tries)]
        return sorted(set(drawn) - {token})
