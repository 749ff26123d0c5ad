"""Defenses of text classifiers: their call contract, and a classifier that rewrites its input."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import TextSplits, as_texts
from aisec_lab.models.text import TextTraining


class TextDefense(Protocol):
    """A defense of a text classifier. Call contract: docs/defenses.md, "Text defense"."""

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        """Defend a text classifier.

        Args:
            model: the undefended classifier, in evaluation mode.
            data: the splits that it was trained on.
            training: its training, for defenses that retrain.
            generator: source of all randomness.

        Returns:
            A classifier of texts, in evaluation mode.
        """
        ...


@dataclass(frozen=True)
class UndefendedText:
    """No defense: the call returns the model itself. Call contract: docs/defenses.md, "Text defense"."""

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        return model


class SanitizedTextModel(nn.Module):
    """A classifier of texts that rewrites its input first, word by word.

    Args:
        rewrite: maps a word to a word, which has no whitespace and is not empty, so that word positions stay.
        model: classifier of the rewritten texts.

    Raises:
        ValueError: on a call, an input that is no list of texts.
    """

    def __init__(self, rewrite: Callable[[str], str], model: nn.Module) -> None:
        super().__init__()
        self.rewrite, self.model = rewrite, model

    def rewritten(self, text: str) -> str:
        """The text that the model sees, words between single spaces."""
        return " ".join(map(self.rewrite, text.split()))

    def forward(self, texts: Iterable[str]) -> Tensor:
        """Logits (N, K) of N texts."""
        logits: Tensor = self.model([self.rewritten(text) for text in as_texts(texts)])
        return logits
