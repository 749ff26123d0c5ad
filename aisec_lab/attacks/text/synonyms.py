"""Words that may stand for each other, as far as the training texts can tell."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aisec_lab.attacks.text.cooccurrence import class_evidence, context_vectors
from aisec_lab.attacks.text.recurring import nearest, recurring
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
    """Whether a token may be replaced, and replace: it has a letter, is no function word, and none is inside."""
    return (
        any(map(str.isalpha, word))
        and word.removesuffix("'s") not in STAY
        and not word.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").endswith(CONTRACTED)
    )


@dataclass(frozen=True, eq=False)
class EmbeddingNeighbours:
    """A table of replacements: learned `Synonyms`, or one made by hand.

    Args:
        table: for a token, what may stand in its place, the best first; a token that is not there stays.
    """

    table: Mapping[str, tuple[str, ...]]

    def learn(self, train: Texts) -> "EmbeddingNeighbours":
        """The table stays what it is."""
        return self

    def options(self, token: str, rng: random.Random) -> list[str]:
        """The token's row of the table."""
        return list(self.table.get(token, ()))


@dataclass(frozen=True)
class Synonyms:
    """Learn which words may replace a word.

    TextFooler (Jin et al., 2020, arXiv:1907.11932, algorithm 1, lines 7 to 9) asks for a high cosine in vectors from
    millions of texts that were pressed apart for antonyms. The victim's training texts are thousands: there the
    nearest words of a rare word are noise, and no cosine says so. What says so is whether they come back: the texts
    are halved, and a replacement is among the nearest words (`context_vectors`) in either half, as near as leaves the
    share of pairs that chance explains below `chance` (`recurring`). Company does not tell "good" from "bad"; the
    classes do: a replacement speaks for each of them as much as the word did, up to `drift`. So this is a bound on
    what the training texts can tell, no more.

    Args of `learn`:
        train: the victim's training texts.

    Returns:
        `EmbeddingNeighbours`, up to `most` for each word; function words have none.

    Raises:
        ValueError: a setting out of its range; on `learn`, texts of which no two words can be told to be alike.
    """

    chance: float = 0.1  # share of the pairs that chance may have put together, before `drift` parts some
    least: int = 10  # how often a word must occur in the training texts
    drift: float = 0.5  # the largest change of the evidence for a class, in nats
    most: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.chance < 1 or self.least < 1 or not self.drift >= 0 or self.most < 1:
            raise ValueError(f"chance must lie in (0, 1), least and most be at least 1, drift at least 0: {self}")

    def learn(self, train: Texts) -> EmbeddingNeighbours:
        """The table for the words of the training texts."""
        vocabulary = Vocabulary.of(train.texts, self.least)
        content = [place for place, word in enumerate(vocabulary.words) if is_content(word)]
        words, table = [vocabulary.words[place] for place in content], {}
        if len(words) > 1:
            evidence = class_evidence(train, vocabulary)[content]
            one, other = (nearest(context_vectors(train.texts[half::2], vocabulary)[content]) for half in range(2))
            for word, alike in recurring(one, other, self.chance).items():
                near = [like for like in alike if np.abs(evidence[word] - evidence[like]).max() <= self.drift]
                if near:
                    table[words[word]] = tuple(words[like] for like in near[: self.most])
        if not table:
            raise ValueError(
                f"of {len(words)} words that occur {self.least} times in {len(train)} texts no two are alike in both "
                "halves of the texts more than by chance: take more training texts, or a table (EmbeddingNeighbours)"
            )
        return EmbeddingNeighbours(table)

    def options(self, token: str, rng: random.Random) -> list[str]:
        """Refused, with a ValueError: nothing has been learned yet."""
        raise ValueError("Synonyms are learned from training texts: attack with `attack.learn(train)`")
