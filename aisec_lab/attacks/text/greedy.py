"""Greedy word by word: the most important word first, each in its most harmful version."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.attacks.text.attack import TextAttackResult, check, check_share
from aisec_lab.attacks.text.edits import swapped
from aisec_lab.attacks.text.replacements import Replacements
from aisec_lab.attacks.text.search_state import SearchState
from aisec_lab.data import Texts
from aisec_lab.models import frozen
from aisec_lab.models.words import SPECIAL, UNKNOWN, tokenise


@dataclass(frozen=True)
class GreedyWordReplacement:
    """Replace words in the order of their importance, by queries alone.

    A word is as important as the lead of the true class falls when an unknown word stands in its place (DeepWordBug;
    Gao et al., 2018, arXiv:1801.04354, section III-B, the replace-1 score). The replacement that lowers the lead most
    is kept if it lowers it at all (TextFooler; Jin et al., 2020, arXiv:1907.11932, algorithm 1). With `CharacterEdits`
    this is the first of these attacks, with `Synonyms` the second without its sentence encoder.

    Args of the call:
        model: classifier of texts in evaluation mode.
        texts, y: clean texts and their true classes (N,), int64.
        generator: source of the replacements that are drawn; a text's draws depend on it and on the text only.

    Returns:
        Texts that have as many words as before, of which no more than `share` are others, but always one may be, each
        from `replacements`.

    Raises:
        ValueError: what are no texts of words (`as_texts`), classes that the model does not have, a model in training
            mode, or replacements that have yet to be learned.
    """

    replacements: Replacements
    share: float = 0.3  # of a text's words, and one word at least where it is not 0
    early_stop: bool = True  # False against a model that draws, where it would stop at a lucky draw

    def __post_init__(self) -> None:
        check_share(self.share)

    def learn(self, train: Texts) -> "GreedyWordReplacement":
        """With replacements that are learned from the victim's training texts."""
        return replace(self, replacements=self.replacements.learn(train))

    def __call__(
        self, model: nn.Module, texts: Iterable[str], y: Tensor, *, generator: torch.Generator
    ) -> TextAttackResult:
        texts = check(model, texts, y)
        key = int(torch.randint(2**62, (), generator=generator))
        with frozen(model):
            found = SearchState(model, texts, y, self.share, self.early_stop)
            order = by_importance(found)
            for rank in range(max(map(len, order.values()), default=0)):
                alive = found.alive
                if not alive:
                    break
                found.take(
                    {row: self._versions(found, row, order[row][rank], key) for row in alive if rank < len(order[row])}
                )
        return found.edited()

    def _versions(self, found: SearchState, row: int, place: int, key: int) -> list[str]:
        """The row's text with each replacement of the word at a place."""
        text = found.clean[row]
        options = self.replacements.options(tokenise(text)[place], random.Random(f"{key} {place} {text}"))
        return [swapped(found.texts[row], place, option) for option in options]


def by_importance(found: SearchState) -> dict[int, list[int]]:
    """For each row in work, its places, the one whose word the true class leans on most first."""
    hidden = {
        row: [swapped(found.clean[row], place, SPECIAL[UNKNOWN]) for place in range(len(found.clean[row].split()))]
        for row in found.alive
    }
    rows = [row for row, versions in hidden.items() for _ in versions]
    margins = found.margins(rows, [text for versions in hidden.values() for text in versions])
    parts = margins.split([len(versions) for versions in hidden.values()])
    return {row: part.argsort(stable=True).tolist() for row, part in zip(hidden, parts, strict=True)}
