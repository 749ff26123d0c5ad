"""A small character-level language model."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from aisec_lab.data import as_strings
from aisec_lab.models.layers import initialise
from aisec_lab.models.passes import logits_of
from aisec_lab.models.words import Tokens

EDGE = 0  # token before a text's first character and after its last
BATCH = 5000  # contexts per pass


@dataclass(frozen=True)
class CharVocabulary:
    """The vocabulary and the context length of a character-level language model.

    Args:
        characters: known characters, each once, at least one.
        context: number of tokens from which the next is predicted, at least 1.

    Raises:
        ValueError: a character twice, no character, or no context.
    """

    characters: str
    context: int = 6

    def __post_init__(self) -> None:
        if not self.characters or len(set(self.characters)) < len(self.characters) or self.context < 1:
            raise ValueError(
                f"characters must stand there once each, context be at least 1: got {self.characters!r}, {self.context}"
            )

    @classmethod
    def of(cls, texts: Iterable[str], context: int = 6) -> "CharVocabulary":
        """The vocabulary of some texts.

        Args:
            texts: strings.
            context: number of tokens from which the next is predicted.

        Returns:
            Their characters in Unicode order.

        Raises:
            ValueError: `texts` are not strings, or have no character.
        """
        return cls("".join(sorted({character for text in as_strings(texts) for character in text})), context)

    def __len__(self) -> int:
        return 1 + len(self.characters)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The token of each character, from 1."""
        return {character: number for number, character in enumerate(self.characters, 1)}

    def windows(self, texts: Iterable[str]) -> tuple[Tensor, Tensor, Tensor]:
        """All positions of all texts, each with its context.

        Args:
            texts: strings of known characters.

        Returns:
            Contexts (P, context), next tokens (P,), and indices of the texts (P,), all int64. A text of n characters
            has n + 1 positions; the last predicts its end.

        Raises:
            ValueError: an unknown character, or `texts` are not strings.
        """
        texts = as_strings(texts)
        if unknown := {character for text in texts for character in text} - set(self.characters):
            raise ValueError(f"the model does not know the characters {sorted(unknown)}: train it on texts with them")
        before = [EDGE] * self.context
        contexts, rows = [], []
        for row, text in enumerate(texts):
            line = torch.tensor([*before, *(self.numbers[character] for character in text), EDGE])
            contexts.append(line.unfold(0, self.context + 1, 1))
            rows += [row] * (len(text) + 1)
        places = torch.cat(contexts) if contexts else torch.zeros(0, self.context + 1, dtype=torch.int64)
        return places[:, :-1], places[:, -1], torch.tensor(rows, dtype=torch.int64)

    def tokens(self, texts: Iterable[str], name: str) -> Tokens:
        """The training rows of `Fit`, one for each position of each text.

        So DP-SGD protects a position: for a text of n characters, its guarantee is that of a group of n + 1 rows.

        Args:
            texts: strings of known characters.
            name: of the dataset.
        """
        x, y, _ = self.windows(texts)
        return Tokens(x, y, ("", *self.characters), name)


@dataclass(frozen=True)
class NeuralNGram:
    """A neural n-gram model: embeddings, one hidden layer, softmax (Bengio et al., 2003, JMLR 3, section 2).

    It has no direct connections from embeddings to outputs. No weight is shared between layers and each layer runs
    once, so every clipping supports it.

    Args:
        dimensions: of the embeddings.
        hidden: units of the hidden layer.
    """

    dimensions: int = 16
    hidden: int = 64

    def __call__(self, characters: CharVocabulary, *, generator: torch.Generator) -> nn.Sequential:
        """Build a language model.

        Args:
            characters: its vocabulary and context length.
            generator: source of the initial weights.

        Returns:
            A classifier of tokens (N, context), int64, to logits (N, K); class 0 is the end of the text.
        """
        embedding = nn.Embedding(len(characters), self.dimensions)
        model = nn.Sequential(
            embedding,
            nn.Flatten(),
            nn.Linear(characters.context * self.dimensions, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, len(characters)),
        )
        initialise(model, generator)
        nn.init.normal_(embedding.weight, std=0.5, generator=generator)
        return model


def text_bits(model: nn.Module, characters: CharVocabulary, texts: Iterable[str]) -> Tensor:
    """The log-perplexity of each text in bits (Carlini et al., 2019, definition 2).

    Args:
        model: language model.
        characters: its vocabulary.
        texts: N strings of known characters.

    Returns:
        -log2 of the texts' probabilities (N,), float64, with the end of the text; over all texts, the probabilities sum
        to 1.

    Raises:
        ValueError: an unknown character, or `texts` are not strings.
    """
    texts = as_strings(texts)
    x, y, rows = characters.windows(texts)
    if not len(x):
        return torch.zeros(0, dtype=torch.float64)
    losses = nn.functional.cross_entropy(logits_of(model, x, BATCH).double(), y, reduction="none")
    nats = torch.zeros(len(texts), dtype=torch.float64).index_add(0, rows, losses)
    return nats / torch.tensor(2.0, dtype=torch.float64).log()
