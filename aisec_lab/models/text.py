"""Text classifiers: small networks on word tokens."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import Texts, as_texts
from aisec_lab.models.layers import initialise
from aisec_lab.models.training.fit import Fit, Objective
from aisec_lab.models.training.recipe import TrainingRecipe
from aisec_lab.models.words import PAD, Vocabulary

BATCH = 1000  # texts per pass


class TextClassifier(nn.Module):
    """A classifier of texts: a sequence of N strings to logits (N, K).

    Args:
        vocabulary: maps words to tokens.
        network: tokens (N, L) to logits (N, K); white-box attacks take gradients at its `nn.Embedding`.
    """

    def __init__(self, vocabulary: Vocabulary, network: nn.Module) -> None:
        super().__init__()
        self.vocabulary, self.network = vocabulary, network

    def forward(self, texts: Iterable[str]) -> Tensor:
        """Logits (N, K) of N texts; ValueError for what `as_texts` refuses."""
        device = next(self.network.parameters()).device
        logits: Tensor = self.network(self.vocabulary.encode(texts).to(device))
        return logits


class TextArchitecture(Protocol):
    """A frozen dataclass of hyper-parameters that is called to build a network on word tokens."""

    def __call__(self, words: int, classes: int, *, generator: torch.Generator) -> nn.Module:
        """Build a network.

        Args:
            words: size of the vocabulary.
            classes: number of classes K.
            generator: source of the initial weights.

        Returns:
            A network of tokens (N, L) in 0..words - 1 to logits (N, K).
        """
        ...


class EmbeddingBag(nn.Module):
    """A linear layer on the mean of word embeddings.

    Args:
        words: size of the vocabulary.
        dimensions: of the embeddings.
        classes: number of classes K.
    """

    def __init__(self, words: int, dimensions: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dimensions, padding_idx=PAD)
        self.linear = nn.Linear(dimensions, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (N, K) of tokens (N, L)."""
        is_word = (tokens != PAD).unsqueeze(2)
        mean = (self.embedding(tokens) * is_word).sum(1) / is_word.sum(1)
        logits: Tensor = self.linear(mean)
        return logits


class WordConv(nn.Module):
    """A convolution over word embeddings, ReLU, the maximum over positions, and a linear layer.

    Args:
        words: size of the vocabulary.
        dimensions: of the embeddings.
        filters: number of filters.
        width: of the filters, in words.
        classes: number of classes K.
    """

    def __init__(self, words: int, dimensions: int, filters: int, width: int, classes: int) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(words, dimensions, padding_idx=PAD)
        self.filters = nn.Linear(width * dimensions, filters)
        self.linear = nn.Linear(filters, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (N, K) of tokens (N, L); padding after the last word has no influence."""
        padded = nn.functional.pad(tokens, (0, self.width - 1), value=PAD)
        windows = self.embedding(padded).unfold(1, self.width, 1).flatten(2)  # (N, L, dimensions * width)
        strengths = self.filters(windows).relu() * (tokens != PAD).unsqueeze(2)
        logits: Tensor = self.linear(strengths.amax(1))
        return logits


@dataclass(frozen=True)
class BagOfEmbeddings:
    """The mean of learned word vectors, and a linear layer (Joulin et al., 2017, arXiv:1607.01759, section 2).

    Args:
        dimensions: of the embeddings.
    """

    dimensions: int = 32

    def __call__(self, words: int, classes: int, *, generator: torch.Generator) -> nn.Module:
        """Build a network.

        Args:
            words: size of the vocabulary.
            classes: number of classes K.
            generator: source of the initial weights.

        Returns:
            A network of tokens (N, L) in 0..words - 1 to logits (N, K).
        """
        return _initialised(EmbeddingBag(words, self.dimensions, classes), generator)


@dataclass(frozen=True)
class TextCNN:
    """A convolution over word embeddings and the maximum over positions (Kim, 2014, arXiv:1408.5882), of one width.

    Args:
        dimensions: of the embeddings.
        filters: number of filters.
        width: of the filters, in words.
    """

    dimensions: int = 32
    filters: int = 64
    width: int = 3

    def __call__(self, words: int, classes: int, *, generator: torch.Generator) -> nn.Module:
        """Build a network.

        Args:
            words: size of the vocabulary.
            classes: number of classes K.
            generator: source of the initial weights.

        Returns:
            A network of tokens (N, L) in 0..words - 1 to logits (N, K).
        """
        return _initialised(WordConv(words, self.dimensions, self.filters, self.width, classes), generator)


@dataclass(frozen=True)
class TextTraining:
    """Training of a text classifier: an architecture and the training loop.

    Args:
        architecture: of the network.
        fit: the training loop.
    """

    architecture: TextArchitecture
    fit: Fit

    def __call__(
        self, train: Texts, objective: Objective | TrainingRecipe, *, generator: torch.Generator
    ) -> TextClassifier:
        """Train a classifier.

        Args:
            train: texts and their classes.
            objective: losses (N,) of tokens (N, L), or a recipe.
            generator: source of initial weights, of the order of rows, and of what the objective draws.

        Returns:
            A classifier with the vocabulary of `train`, in evaluation mode.
        """
        vocabulary = Vocabulary.of(train.texts)
        network = self.architecture(len(vocabulary), len(train.classes), generator=generator)
        self.fit(network, vocabulary.tokens(train), objective, generator=generator)
        return TextClassifier(vocabulary, network).eval()


@torch.no_grad()
def text_logits(model: nn.Module, texts: Iterable[str]) -> Tensor:
    """Logits of many texts, batch by batch and without gradients.

    Args:
        model: classifier of texts, in evaluation mode.
        texts: N strings.

    Returns:
        Logits (N, K) on the CPU.

    Raises:
        ValueError: texts that `as_texts` refuses.
    """
    texts = as_texts(texts)
    return torch.cat([model(texts[start : start + BATCH]).cpu() for start in range(0, len(texts), BATCH)])


def _initialised(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Initialise all weights from `generator`; the embedding of `PAD` is zero."""
    initialise(network, generator)
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1, generator=generator)
            with torch.no_grad():
                module.weight[PAD].zero_()
    return network
