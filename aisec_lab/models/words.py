"""Tokenisation of texts into words."""

import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from aisec_lab.data import Dataset, Texts, as_strings, as_texts

MASK = "[...]"  # replaces a word that the model must not see; punctuation only, so that no word is spelt like it
PAD, UNKNOWN, MASKED = range(3)  # special tokens
SPECIAL = ("", "[?]", MASK)


def tokenise(text: str) -> list[str]:
    """Split a text at whitespace into words, in lower case and without punctuation at their ends.

    A word of punctuation only stays as it is. So a text with n words has n tokens, and none is empty.

    Args:
        text: any string.

    Returns:
        Its tokens, in the order of the text.
    """
    return [word.lower().strip(string.punctuation) or word for word in text.split()]


class Tokens(Dataset):
    """A dataset of tokens and classes, on which `Fit` trains a text network.

    Args:
        x: tokens (N, L), int64, `PAD` after the end of a text.
        y: classes (N,), int64.
        classes: names of the classes.
        name: of the dataset.

    Raises:
        ValueError: x of another dtype or shape.
    """

    def __post_init__(self) -> None:
        if self.x.dtype != torch.int64 or self.x.ndim != 2:
            raise ValueError(
                f"{self.name}: numbers of words are int64 (N, L), got {self.x.dtype} {tuple(self.x.shape)}: "
                "make them with Vocabulary.tokens"
            )


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary of a text classifier.

    Args:
        words: known words, each once, the most frequent first.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], least: int = 2) -> "Vocabulary":
        """The vocabulary of some texts.

        Args:
            texts: training texts, strings.
            least: how often a word must occur; rarer ones become `UNKNOWN`, so that its embedding is trained too.

        Returns:
            Their words, the most frequent first, equally frequent ones in alphabetical order.

        Raises:
            ValueError: `texts` are not strings.
        """
        counts = Counter(token for text in as_strings(texts) for token in tokenise(text))
        kept = [token for token, count in counts.items() if count >= least and token not in SPECIAL]
        return cls(tuple(sorted(kept, key=lambda token: (-counts[token], token))))

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The token of each word."""
        return {word: number for number, word in enumerate((*SPECIAL, *self.words))}

    def encode(self, texts: Iterable[str]) -> Tensor:
        """The tokens of texts.

        Args:
            texts: N strings.

        Returns:
            Tokens (N, L), int64; L is the length of the longest text, and `PAD` fills the others.

        Raises:
            ValueError: what `as_texts` refuses.
        """
        rows = [[self.numbers.get(token, UNKNOWN) for token in tokenise(text)] for text in as_texts(texts)]
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], dtype=torch.int64)

    def tokens(self, data: Texts) -> Tokens:
        """Encode texts and classes as a dataset for `Fit`.

        Args:
            data: texts and their classes.

        Returns:
            The tokens (N, L) and the same classes (N,).
        """
        return Tokens(self.encode(data.texts), data.y, data.classes, data.name)
