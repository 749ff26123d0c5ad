"""The call of every attack on texts, its result, and the checks of its arguments."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion import attack as evasion
from aisec_lab.data import Texts, as_texts


@dataclass(frozen=True, eq=False)
class TextAttackResult:
    """The result of an attack on N texts.

    Args:
        texts: N texts, adversarial where the attack succeeded, else the clean ones; each has as many words as before.
        changed: number of words that differ from the clean text (N,), int64.
        distance: share of words that were changed (N,), float64; 0 for texts that are misclassified as they are, `inf`
            where the attack failed. It may exceed the allowed share where a single word does (`max_changes`).
        queries: texts that the model classified for each (N,), int64; a gradient counts as one.
        paths: for each text, its versions with 0, 1, 2, ... words changed, as far as the search went.
    """

    texts: tuple[str, ...]
    changed: Tensor
    distance: Tensor
    queries: Tensor
    paths: tuple[tuple[str, ...], ...]

    def within(self, share: float) -> tuple[str, ...]:
        """The texts that the same attack makes when a smaller share of words may change.

        Args:
            share: of a text's words that may change, in [0, 1], at most that of the attack.

        Returns:
            N texts, whether misclassified or not.

        Raises:
            ValueError: a share outside [0, 1].
        """
        return tuple(path[min(len(path) - 1, max_changes(len(path[0].split()), share))] for path in self.paths)


def max_changes(words: int, share: float) -> int:
    """How many words of a text may change.

    Args:
        words: of the text, at least 1.
        share: of its words that may change, in [0, 1].

    Returns:
        The largest count with count / words <= share, but at least 1 where `share` is not 0: else a text of three words
        would count as robust at a share of 0.3, since no word could be changed.

    Raises:
        ValueError: a share outside [0, 1].
    """
    check_share(share)
    return max(int(share > 0), *(count for count in range(words + 1) if count / words <= share))


class TextAttack(Protocol):
    """An attack on texts: a frozen dataclass of settings that is called.

    Call contract: docs/text-attacks.md.
    """

    @property
    def early_stop(self) -> bool:
        """Whether a text is left alone once it is misclassified; False is better against a randomised model."""
        ...

    def learn(self, train: Texts) -> "TextAttack":
        """The same attack, with replacements learned from the victim's training texts if it learns any."""
        ...

    def __call__(
        self, model: nn.Module, texts: Iterable[str], y: Tensor, *, generator: torch.Generator
    ) -> TextAttackResult:
        """Attack texts.

        Args:
            model: classifier of texts in evaluation mode.
            texts: N clean texts, as `as_texts` takes them.
            y: their true classes (N,), int64.
            generator: source of all randomness.

        Returns:
            The texts, their distances and queries; each text has as many words as before.

        Raises:
            ValueError: what are no texts of words, classes that the model does not have, a model in training mode, or
                replacements that were not learned yet.
        """
        ...


def check(model: nn.Module, texts: Iterable[str], y: Tensor) -> tuple[str, ...]:
    """Check the arguments of an attack on texts.

    Args:
        model: classifier of texts in evaluation mode.
        texts: N texts, as `as_texts` takes them.
        y: classes (N,), int64.

    Returns:
        The texts as a tuple.

    Raises:
        ValueError: what are no texts of words, a model in training mode, negative classes or another number of them.
    """
    strings = as_texts(texts)
    evasion.check(model, torch.empty(len(strings), 0), y)
    return strings


def check_share(share: float) -> None:
    """Refuse, with a ValueError, a share of words outside [0, 1]."""
    if not 0 <= share <= 1:
        raise ValueError(f"share, the share of a text's words that may change, must lie in [0, 1], got {share}")
