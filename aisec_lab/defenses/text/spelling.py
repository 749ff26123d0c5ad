"""Spelling correction: replace an unknown word by a known one that is one edit away."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import nn

from aisec_lab.attacks.text.edits import replace_word
from aisec_lab.data import TextSplits
from aisec_lab.defenses.text.defense import SanitizedTextModel
from aisec_lab.models.text import TextTraining
from aisec_lab.models.words import Vocabulary, tokenise


def one_edit(first: str, second: str) -> bool:
    """Whether one edit separates two words: a swap of neighbouring letters, deletion, insertion or substitution.

    Args:
        first, second: two different words.
    """
    short, long = sorted((first, second), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next((place for place, pair in enumerate(zip(short, long, strict=False)) if len(set(pair)) > 1), len(short))
    a, b = short[start:], long[start:]
    if len(a) < len(b):
        return a == b[1:]
    return a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


class SpellChecker:
    """Replace unknown words by the most frequent known word that is one edit away (Norvig, 2007).

    Args:
        vocabulary: known words, the most frequent first.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.known = set(vocabulary.words)
        self.rank = {word: rank for rank, word in enumerate(vocabulary.words)}
        self.near: dict[str, list[str]] = defaultdict(list)  # from a word with at most one letter deleted
        for word in vocabulary.words:
            for key in _without_a_letter(word):
                self.near[key].append(word)

    def __call__(self, word: str) -> str:
        """Correct a word.

        Args:
            word: one token, with or without punctuation.

        Returns:
            The correction, with the word's capital and punctuation; `word` itself where it is known, has no letter, or
            no known word is one edit away.
        """
        (token,) = tokenise(word)
        if token in self.known or not any(map(str.isalpha, token)):
            return word
        candidates = {known for key in _without_a_letter(token) for known in self.near.get(key, ())}
        close = [known for known in candidates if one_edit(token, known)]
        return replace_word(word, 0, min(close, key=self.rank.__getitem__)) if close else word


def _without_a_letter(word: str) -> set[str]:
    """The word and all its deletions of one letter: two words that are one edit apart have one in common."""
    return {word} | {word[:place] + word[place + 1 :] for place in range(len(word))}


@dataclass(frozen=True)
class SpellChecking:
    """Correct the spelling before classification (after Pruthi et al., 2019, arXiv:1905.11268).

    Their corrector uses the context; this one takes the most frequent training word within one edit. Call contract:
    docs/defenses.md, "Text defense"; it does not retrain.
    """

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        return SanitizedTextModel(SpellChecker(Vocabulary.of(data.train.texts)), model).eval()
