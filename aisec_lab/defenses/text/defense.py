"""What every defense of a text classifier is called with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import TextSplits, as_texts
from aisec_lab.models.text import TextTraining


class TextDefense(Protocol):
    """A defense of a text classifier: a frozen dataclass of settings that is called."""

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        """A classifier of texts, in evaluation mode.

        Args:
            model: the undefended classifier, in evaluation mode.
            data: what it was trained on.
            training: how, for defenses that train anew.
            generator: source of all randomness of such a training.
        """
        ...


@dataclass(frozen=True)
class UndefendedText:
    """No defense: the text classifier as it is."""

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        return model


class SanitizedTextModel(nn.Module):
    """A classifier of texts that first rewrites them, word by word.

    Args:
        rewrite: of one word; what it gives back has no whitespace and is not empty, so that places are kept.
        model: sees what comes of it.
    """

    def __init__(self, rewrite: Callable[[str], str], model: nn.Module) -> None:
        super().__init__()
        self.rewrite, self.model = rewrite, model

    def rewritten(self, text: str) -> str:
        """The text that the model sees."""
        return " ".join(map(self.rewrite, text.split()))

    def forward(self, texts: Iterable[str]) -> Tensor:
        """Logits (N, K) of N texts; ValueError for what are none."""
        logits: Tensor = self.model([self.rewritten(text) for text in as_texts(texts)])
        return logits
