"""From a text to the numbers of its words."""

import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from aisec_lab.data import Dataset, Texts, as_strings, as_texts

MASK = "[...]"  # stands for a word that the model shall not see; punctuation only, so that no word is spelt like it
PAD, UNKNOWN, MASKED = range(3)  # numbers of what is no word of the training texts
SPECIAL = ("", "[?]", MASK)


def tokenise(text: str) -> list[str]:
    """One token for each word that whitespace separates: in lower case, without punctuation at its ends.

    A word of punctuation only stays as it is, so a text with n words has n tokens and none of them is empty.
    """
    return [word.lower().strip(string.punctuation) or word for word in text.split()]


class Tokens(Dataset):
    """Word numbers and classes: rows of another space than images, on which `Fit` trains a text network.

    Args:
        x: numbers of words (N, L), int64, `PAD` after the end.
        y, classes, name: as for `Dataset`.
    """

    def __post_init__(self) -> None:
        if self.x.dtype != torch.int64 or self.x.ndim != 2:
            raise ValueError(
                f"{self.name}: numbers of words are int64 (N, L), got {self.x.dtype} {tuple(self.x.shape)}: "
                "make them with Vocabulary.tokens"
            )


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows.

    Args:
        words: each once, the most frequent first.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], least: int = 2) -> "Vocabulary":
        """The tokens of some texts, the most frequent first, equals by the alphabet.

        Args:
            texts: the training texts.
            least: how often a token must occur; rarer ones stand for the unknown, so that it is learned too.

        Raises:
            ValueError: what are no strings.
        """
        counts = Counter(token for text in as_strings(texts) for token in tokenise(text))
        kept = [token for token, count in counts.items() if count >= least and token not in SPECIAL]
        return cls(tuple(sorted(kept, key=lambda token: (-counts[token], token))))

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate((*SPECIAL, *self.words))}

    def encode(self, texts: Iterable[str]) -> Tensor:
        """Numbers (N, L) of the words of texts, int64; L is the longest text's, `PAD` fills the others.

        Raises:
            ValueError: what are no texts (`as_texts`).
        """
        rows = [[self.numbers.get(token, UNKNOWN) for token in tokenise(text)] for text in as_texts(texts)]
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], dtype=torch.int64)

    def tokens(self, data: Texts) -> Tokens:
        """The rows of `data`, for training."""
        return Tokens(self.encode(data.texts), data.y, data.classes, data.name)
