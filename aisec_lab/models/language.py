"""A small language model: which character follows the last few ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from aisec_lab.data import as_strings
from aisec_lab.models.layers import initialise
from aisec_lab.models.passes import logits_of
from aisec_lab.models.words import Tokens

EDGE = 0  # number of what stands before a text's first character and follows its last one
BATCH = 5000  # windows a pass


@dataclass(frozen=True)
class CharVocabulary:
    """The characters that a language model knows, and how many of them it looks back at.

    Args:
        characters: each once.
        context: how many numbers stand before the one that is predicted, at least 1.

    Raises:
        ValueError: a character twice, none at all, or no context.
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
        """The characters of some texts, in the order of Unicode; ValueError for what are no strings."""
        return cls("".join(sorted({character for text in as_strings(texts) for character in text})), context)

    def __len__(self) -> int:
        return 1 + len(self.characters)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each character, from 1 up."""
        return {character: number for number, character in enumerate(self.characters, 1)}

    def windows(self, texts: Iterable[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Every place of every text: what stands before it, and what stands there.

        Args:
            texts: of known characters only.

        Returns:
            Contexts (P, context), what follows each (P,), and the row of the text (P,), all int64; a text of n
            characters has n + 1 places, the last of which is its end.

        Raises:
            ValueError: an unknown character, or what are no strings.
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
        """The rows that `Fit` trains a language model on, one for each place of each text.

        So it is a place, not a text, that private training counts as a row: what it promises for a text of n
        characters is the promise for n + 1 rows together.
        """
        x, y, _ = self.windows(texts)
        return Tokens(x, y, ("", *self.characters), name)


@dataclass(frozen=True)
class NeuralNGram:
    """Vectors of the last few characters, one hidden layer, the next one (Bengio et al., 2003, JMLR 3, section 2).

    Without the paper's connections from vectors to outputs. No weight is shared between layers and each layer runs
    once, so that every private training takes it. It is a classifier of numbers of characters, not of pixels.

    Args of the call:
        characters: what it knows.
        generator: source of the weights.

    Returns:
        An `nn.Sequential` from numbers (N, context), int64, to logits (N, K); class 0 is the end of the text.
    """

    dimensions: int = 16
    hidden: int = 64

    def __call__(self, characters: CharVocabulary, *, generator: torch.Generator) -> nn.Sequential:
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
    """How many bits the model needs for each text, its log-perplexity (Carlini et al., 2019, definition 2).

    Args:
        model: language model.
        characters: what it knows.
        texts: N of them.

    Returns:
        -log2 of the texts' probabilities (N,), float64; these add up to 1 over all texts that there are.

    Raises:
        ValueError: an unknown character, or what are no strings.
    """
    texts = as_strings(texts)
    x, y, rows = characters.windows(texts)
    if not len(x):
        return torch.zeros(0, dtype=torch.float64)
    losses = nn.functional.cross_entropy(logits_of(model, x, BATCH).double(), y, reduction="none")
    nats = torch.zeros(len(texts), dtype=torch.float64).index_add(0, rows, losses)
    return nats / torch.tensor(2.0, dtype=torch.float64).log()
