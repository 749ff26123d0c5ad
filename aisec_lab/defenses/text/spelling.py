"""A known word for an unknown one that is spelt almost like it."""

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
    """Whether two different words are one swap of neighbours, deletion, insertion or substitution apart."""
    short, long = sorted((first, second), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next((place for place, pair in enumerate(zip(short, long, strict=False)) if len(set(pair)) > 1), len(short))
    a, b = short[start:], long[start:]
    if len(a) < len(b):
        return a == b[1:]
    return a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


class SpellChecker:
    """Replaces a word that is not in a vocabulary by the most frequent one that is one edit away (Norvig, 2007).

    Args:
        vocabulary: the most frequent word first.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.known = set(vocabulary.words)
        self.rank = {word: rank for rank, word in enumerate(vocabulary.words)}
        self.near: dict[str, list[str]] = defaultdict(list)  # a word, or one without a letter, to words of that kind
        for word in vocabulary.words:
            for key in _without_a_letter(word):
                self.near[key].append(word)

    def __call__(self, word: str) -> str:
        """The word, with capital and punctuation kept; itself where nothing known is one edit away."""
        (token,) = tokenise(word)
        if token in self.known or not any(map(str.isalpha, token)):
            return word
        candidates = {known for key in _without_a_letter(token) for known in self.near.get(key, ())}
        close = [known for known in candidates if one_edit(token, known)]
        return replace_word(word, 0, min(close, key=self.rank.__getitem__)) if close else word


def _without_a_letter(word: str) -> set[str]:
    """The word and its deletions: two words that are one edit apart share one of these."""
    return {word} | {word[:place] + word[place + 1 :] for place in range(len(word))}


@dataclass(frozen=True)
class SpellChecking:
    """Correct unknown words to the training texts' nearest ones (as Pruthi et al., 2019, arXiv:1905.11268, defend).

    Their corrector reads the context; this one takes the most frequent word within one edit. Called as `TextDefense`
    says.
    """

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        return SanitizedTextModel(SpellChecker(Vocabulary.of(data.train.texts)), model).eval()
