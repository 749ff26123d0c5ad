"""Synonyms learned from training texts, or given as a table."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aisec_lab.attacks.text.cooccurrence import class_evidence, context_vectors
from aisec_lab.attacks.text.neighbours import nearest_neighbours, recurring_neighbours
from aisec_lab.data import Texts
from aisec_lab.models.words import Vocabulary

FUNCTION_WORDS = """
a an the and or but nor not no never none nothing n't cannot without hardly barely so if than very really too
i you he she it we they me him her us them my your his its our their this that these those is are was were be been am
do does did have has had will would can could should may might must of in on at to for with from by as
who whom whose which what when where why how whether while because since though although unless until there here
about above across after against along among around before behind below between beyond despite down during into near
off onto out over through toward towards under up upon within each every some any all both few many more most other
n't nt ll ve re
"""
STAY = frozenset(FUNCTION_WORDS.split())  # without them a text may say the opposite
CONTRACTED = ("n't", "'ll", "'ve", "'re", "'d", "'m")


def is_content(word: str) -> bool:
    """Whether a token may be replaced or inserted: it has a letter, is no function word and no contraction with one."""
    return (
        any(map(str.isalpha, word))
        and word.removesuffix("'s") not in STAY
        and not word.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").endswith(CONTRACTED)
    )


@dataclass(frozen=True, eq=False)
class SynonymTable:
    """A table of replacements, learned by `Synonyms` or made by hand.

    A source of `Replacements`; docs/text-attacks.md.

    Args:
        table: for a token its replacements, the best first; other tokens have none.
    """

    table: Mapping[str, tuple[str, ...]]

    def learn(self, train: Texts) -> "SynonymTable":
        """The same: nothing is learned."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """The token's replacements in the table, in their order; nothing is drawn."""
        return list(self.table.get(token, ()))


@dataclass(frozen=True)
class Synonyms:
    """Learn replacements of words from the victim's training texts.

    TextFooler (Jin et al., 2020, arXiv:1907.11932, algorithm 1, lines 7 to 9) requires a high cosine of word vectors
    that were trained on millions of texts and counter-fitted against antonyms. The victim's training texts are only
    thousands, in which the nearest words of a rare word are noise. So a replacement has to recur: the texts are halved,
    and it has to be among the nearest words (`context_vectors`) in both halves, at a false discovery rate of `chance`
    (`recurring_neighbours`). Neighbouring words do not separate "good" from "bad", but classes do: a replacement has to
    indicate each class as strongly as the word does, up to `drift`. The table is what the training texts support, and
    no guarantee of equal meaning.

    A source of `Replacements` that has to learn first; docs/text-attacks.md.

    Args:
        chance: share of the pairs that may be there by chance, before `drift` removes some, in (0, 1).
        least: occurrences that a word needs in the training texts, at least 1.
        drift: largest change of the evidence for a class, in nats, at least 0.
        most: replacements of a word at most, at least 1.

    Raises:
        ValueError: settings out of range.
    """

    chance: float = 0.1
    least: int = 10
    drift: float = 0.5
    most: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.chance < 1 or self.least < 1 or not self.drift >= 0 or self.most < 1:
            raise ValueError(f"chance must lie in (0, 1), least and most be at least 1, drift at least 0: {self}")

    def learn(self, train: Texts) -> SynonymTable:
        """Learn the table.

        Args:
            train: the victim's training texts and their classes.

        Returns:
            Up to `most` replacements for each word; function words have none.

        Raises:
            ValueError: no two words of the texts are similar beyond chance.
        """
        vocabulary = Vocabulary.of(train.texts, self.least)
        content = [place for place, word in enumerate(vocabulary.words) if is_content(word)]
        words, table = [vocabulary.words[place] for place in content], {}
        if len(words) > 1:
            evidence = class_evidence(train, vocabulary)[content]
            one, other = (
                nearest_neighbours(context_vectors(train.texts[half::2], vocabulary)[content]) for half in range(2)
            )
            for word, alike in recurring_neighbours(one, other, self.chance).items():
                near = [like for like in alike if np.abs(evidence[word] - evidence[like]).max() <= self.drift]
                if near:
                    table[words[word]] = tuple(words[like] for like in near[: self.most])
        if not table:
            raise ValueError(
                f"of {len(words)} words that occur {self.least} times in {len(train)} texts no two are alike in both "
                "halves of the texts more than by chance: take more training texts, or a table (SynonymTable)"
            )
        return SynonymTable(table)

    def options(self, token: str, rng: random.Random) -> list[str]:
        """Always a ValueError: nothing has been learned yet."""
        raise ValueError("Synonyms are learned from training texts: attack with `attack.learn(train)`")
