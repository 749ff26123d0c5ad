"""Words that may stand for each other, as far as the training texts can tell."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aisec_lab.attacks.text.cooccurrence import class_evidence, context_vectors
from aisec_lab.data import Texts
from aisec_lab.models.words import Vocabulary

FUNCTION_WORDS = """
a an the and or but nor not no never none nothing n't cannot without hardly barely so if than very really too
i you he she it we they me him her us them my your his its our their this that these those is are was were be been am
do does did have has had will would can could should may might must of in on at to for with from by as
"""
STAY = frozenset(FUNCTION_WORDS.split())  # without them a text may say the opposite
ROWS = 500  # words whose neighbours are sought at a time


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A table of replacements: learned `Synonyms`, or one made by hand.

    Args:
        table: for a token, what may stand in its place, the best first; a token that is not there stays.
    """

    table: Mapping[str, tuple[str, ...]]

    def learn(self, train: Texts) -> "Neighbours":
        """The table stays what it is."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """The token's row of the table."""
        return list(self.table.get(token, ()))


@dataclass(frozen=True)
class Synonyms:
    """Learn which words may replace a word.

    TextFooler (Jin et al., 2020, arXiv:1907.11932, algorithm 1, lines 7 to 9) asks for a high cosine in vectors that
    were pressed apart for antonyms, which company alone does not tell: "good" and "bad" keep the same. Here vectors
    are the company of words in the training texts (`context_vectors`), and what presses antonyms apart is the
    classes: a replacement speaks for each of them as much as the word did, up to `drift`. A word too rare to speak
    for a class is held to speak for none: so this is a bound on what the training texts can tell, no more.

    Args of `learn`:
        train: the victim's training texts.

    Returns:
        `Neighbours`, up to `most` for each word; function words have none.
    """

    similarity: float = 0.5  # the least cosine
    drift: float = 0.5  # the largest change of the evidence for a class, in nats
    most: int = 20

    def __post_init__(self) -> None:
        if not -1 <= self.similarity <= 1 or not self.drift >= 0 or self.most < 1:
            raise ValueError(f"similarity is a cosine, drift at least 0, most at least 1: {self}")

    def learn(self, train: Texts) -> Neighbours:
        """The table for the words of the training texts."""
        vocabulary = Vocabulary.of(train.texts)
        vectors, evidence = context_vectors(train, vocabulary), class_evidence(train, vocabulary)
        words = np.array(vocabulary.words)
        content = np.array([word not in STAY and any(map(str.isalpha, word)) for word in vocabulary.words])
        table = {}
        for start in range(0, len(words), ROWS):
            cosines = vectors[start : start + ROWS] @ vectors.T
            drift = np.abs(evidence[start : start + ROWS, None] - evidence[None]).max(2)
            fits = (cosines >= self.similarity) & (drift <= self.drift) & content
            for row in range(len(cosines)):
                word = start + row
                fits[row, word] = False
                nearest = np.argsort(-np.where(fits[row], cosines[row], -np.inf), kind="stable")[: self.most]
                if content[word] and fits[row].any():
                    table[str(words[word])] = tuple(map(str, words[nearest[fits[row][nearest]]]))
        return Neighbours(table)

    def options(self, token: str, rng: random.Random) -> list[str]:
        """Refused, with a ValueError: nothing has been learned yet."""
        raise ValueError("Synonyms are learned from training texts: attack with `attack.learn(train)`")
