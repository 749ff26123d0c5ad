"""Greedy word replacement: the most important word first, each by its most harmful replacement."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.attacks.text.attack import TextAttackResult, check, check_share
from aisec_lab.attacks.text.edits import replace_word
from aisec_lab.attacks.text.replacements import Replacements
from aisec_lab.attacks.text.search_state import SearchState
from aisec_lab.data import Texts
from aisec_lab.models import frozen
from aisec_lab.models.words import SPECIAL, UNKNOWN, tokenise


@dataclass(frozen=True)
class GreedyWordReplacement:
    """Replace words in the order of their importance, using queries only.

    A word's importance is how much the margin of the true class falls when an unknown word replaces it (DeepWordBug;
    Gao et al., 2018, arXiv:1801.04354, section III-B, the replace-1 score). The replacement that lowers the margin most
    is kept if it lowers it at all (TextFooler; Jin et al., 2020, arXiv:1907.11932, algorithm 1). With `CharacterEdits`
    this is DeepWordBug, with `Synonyms` TextFooler without its sentence encoder.

    Call contract: docs/text-attacks.md. Replacements that are drawn for a text depend on the generator's state and on
    this text only.

    Args:
        replacements: source of the replacements of a word.
        share: of a text's words that may change, in [0, 1]; one word always may, unless it is 0.
        early_stop: whether a text is left alone once it is misclassified; take False against a randomised model, where
            that may be by chance.
    """

    replacements: Replacements
    share: float = 0.3
    early_stop: bool = True

    def __post_init__(self) -> None:
        check_share(self.share)

    def learn(self, train: Texts) -> "GreedyWordReplacement":
        """The same attack, with replacements learned from the victim's training texts."""
        return replace(self, replacements=self.replacements.learn(train))

    def __call__(
        self, model: nn.Module, texts: Iterable[str], y: Tensor, *, generator: torch.Generator
    ) -> TextAttackResult:
        texts = check(model, texts, y)
        key = int(torch.randint(2**62, (), generator=generator))
        with frozen(model):
            found = SearchState(model, texts, y, self.share, self.early_stop)
            order = rank_by_importance(found)
            for rank in range(max(map(len, order.values()), default=0)):
                active = found.active
                if not active:
                    break
                found.update(
                    {row: self._versions(found, row, order[row][rank], key) for row in active if rank < len(order[row])}
                )
        return found.result()

    def _versions(self, found: SearchState, row: int, place: int, key: int) -> list[str]:
        """The row's current text with each replacement of the word at a place."""
        text = found.clean[row]
        options = self.replacements.options(tokenise(text)[place], random.Random(f"{key} {place} {text}"))
        return [replace_word(found.texts[row], place, option) for option in options]


def rank_by_importance(found: SearchState) -> dict[int, list[int]]:
    """Order the words of the active texts by importance.

    Args:
        found: the state of a search before its first change; each word costs a query.

    Returns:
        For each active row, the indices of its words, the most important one first.
    """
    hidden = {
        row: [replace_word(found.clean[row], place, SPECIAL[UNKNOWN]) for place in range(len(found.clean[row].split()))]
        for row in found.active
    }
    rows = [row for row, versions in hidden.items() for _ in versions]
    margins = found.margins(rows, [text for versions in hidden.values() for text in versions])
    parts = margins.split([len(versions) for versions in hidden.values()])
    return {row: part.argsort(stable=True).tolist() for row, part in zip(hidden, parts, strict=True)}
