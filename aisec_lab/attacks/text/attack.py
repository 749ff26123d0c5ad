"""The public door of the attacks on texts: what they are called with, what they give back, what is refused."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion import attack as door
from aisec_lab.data import Texts, as_texts


@dataclass(frozen=True, eq=False)
class TextAttackResult:
    """What an attack on texts found.

    Args:
        texts: N texts, each with as many words as before; one for which nothing was found stays as it was.
        changed: how many words of each are others (N,), int64.
        distance: the share of words that had to change (N,), float64: 0 for texts that are won as they are, `inf`
            where nothing was found. A text's first word may be more than the share that was allowed (`allowance`).
        queries: how many texts the model was asked about (N,), int64; a gradient is one query.
        paths: of each text, the versions with 0, 1, 2, ... words changed, as far as the search went.
    """

    texts: tuple[str, ...]
    changed: Tensor
    distance: Tensor
    queries: Tensor
    paths: tuple[tuple[str, ...], ...]

    def within(self, share: float) -> tuple[str, ...]:
        """The N texts as the same attack makes them with a smaller share of words: one run gives the whole curve."""
        return tuple(path[min(len(path) - 1, allowance(len(path[0].split()), share))] for path in self.paths)


def allowance(words: int, share: float) -> int:
    """How many of so many words may change.

    Args:
        words: of a text, at least 1.
        share: of them that may change, in [0, 1].

    Returns:
        The largest number whose share, as a float, is at most `share`; but one word wherever `share` is not 0, or a
        text of three words would pass for robust at a share of 0.3 because nobody may touch it.

    Raises:
        ValueError: a share outside [0, 1].
    """
    check_share(share)
    return max(int(share > 0), *(count for count in range(words + 1) if count / words <= share))


class TextAttack(Protocol):
    """An attack on texts: a frozen dataclass of settings that is called.

    Attributes:
        early_stop: leave a text alone once it is misclassified; against a model that draws, that is at a lucky draw.
    """

    @property
    def early_stop(self) -> bool:
        """Whether it does."""
        ...

    def learn(self, train: Texts) -> "TextAttack":
        """The same attack with what it learns from the victim's training texts, if anything."""
        ...

    def __call__(
        self, model: nn.Module, texts: Iterable[str], y: Tensor, *, generator: torch.Generator
    ) -> TextAttackResult:
        """Adversarial texts for classes `y`; the only randomness comes from `generator`."""
        ...


def check(model: nn.Module, texts: Iterable[str], y: Tensor) -> tuple[str, ...]:
    """The texts, once nothing is left that would make an attack on them silently wrong.

    Args:
        model: classifier of texts in evaluation mode.
        texts: N texts, as `as_texts` takes them.
        y: classes (N,), int64.

    Raises:
        ValueError: what are no texts, a model in training mode, classes that are none.
    """
    strings = as_texts(texts)
    door.check(model, torch.empty(len(strings), 0), y)
    return strings


def check_share(share: float) -> None:
    """Refuse, with a ValueError, a share of words that is none."""
    if not 0 <= share <= 1:
        raise ValueError(f"share, the share of a text's words that may change, must lie in [0, 1], got {share}")
