"""Text classifiers: small networks over the words of a text."""

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

BATCH = 1000  # texts a pass


class TextClassifier(nn.Module):
    """A classifier of texts: a sequence of N strings to logits (N, K).

    Args:
        vocabulary: the words that it knows.
        network: numbers of words (N, L) to logits; its `nn.Embedding` is where an attacker takes gradients.
    """

    def __init__(self, vocabulary: Vocabulary, network: nn.Module) -> None:
        super().__init__()
        self.vocabulary, self.network = vocabulary, network

    def forward(self, texts: Iterable[str]) -> Tensor:
        """Logits (N, K) of N texts; ValueError for what are none (`as_texts`)."""
        device = next(self.network.parameters()).device
        logits: Tensor = self.network(self.vocabulary.encode(texts).to(device))
        return logits


class TextArchitecture(Protocol):
    """A frozen dataclass of hyper-parameters that, called, builds a network over numbers of words."""

    def __call__(self, words: int, classes: int, *, generator: torch.Generator) -> nn.Module:
        """Build a network of numbers (N, L) in 0..words-1 into logits (N, classes), weights from `generator`."""
        ...


class EmbeddingBag(nn.Module):
    """A linear function of the mean of the words' vectors."""

    def __init__(self, words: int, dimensions: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dimensions, padding_idx=PAD)
        self.linear = nn.Linear(dimensions, classes)

    def forward(self, numbers: Tensor) -> Tensor:
        """Logits (N, K) of numbers (N, L)."""
        here = (numbers != PAD).unsqueeze(2)
        mean = (self.embedding(numbers) * here).sum(1) / here.sum(1)
        logits: Tensor = self.linear(mean)
        return logits


class WordConv(nn.Module):
    """Filters over every run of `width` words, the strongest answer of each, and a linear layer."""

    def __init__(self, words: int, dimensions: int, filters: int, width: int, classes: int) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(words, dimensions, padding_idx=PAD)
        self.filters = nn.Linear(width * dimensions, filters)
        self.linear = nn.Linear(filters, classes)

    def forward(self, numbers: Tensor) -> Tensor:
        """Logits (N, K) of numbers (N, L); what follows a text's last word does not matter."""
        padded = nn.functional.pad(numbers, (0, self.width - 1), value=PAD)
        windows = self.embedding(padded).unfold(1, self.width, 1).flatten(2)  # (N, L, dimensions * width)
        strengths = self.filters(windows).relu() * (numbers != PAD).unsqueeze(2)
        logits: Tensor = self.linear(strengths.amax(1))
        return logits


@dataclass(frozen=True)
class BagOfEmbeddings:
    """The mean of learned word vectors, and a linear layer (Joulin et al., 2017, arXiv:1607.01759, section 2).

    Args of the call:
        words, classes: how many of each.
        generator: source of the weights.

    Returns:
        A network from numbers of words (N, L) to logits (N, classes).
    """

    dimensions: int = 32

    def __call__(self, words: int, classes: int, *, generator: torch.Generator) -> nn.Module:
        return _drawn(EmbeddingBag(words, self.dimensions, classes), generator)


@dataclass(frozen=True)
class TextCNN:
    """A convolution over word vectors and the maximum over places (Kim, 2014, arXiv:1408.5882), one width.

    Args of the call: as for `BagOfEmbeddings`.
    """

    dimensions: int = 32
    filters: int = 64
    width: int = 3

    def __call__(self, words: int, classes: int, *, generator: torch.Generator) -> nn.Module:
        return _drawn(WordConv(words, self.dimensions, self.filters, self.width, classes), generator)


@dataclass(frozen=True)
class TextTraining:
    """How text classifiers are trained: an architecture and the training loop.

    Args of the call:
        train: texts and their classes.
        objective: what is minimised; its x are numbers of words (N, L).
        generator: source of weights, order, and what the objective draws.

    Returns:
        A classifier with the vocabulary of `train`, in evaluation mode.
    """

    architecture: TextArchitecture
    fit: Fit

    def __call__(
        self, train: Texts, objective: Objective | TrainingRecipe, *, generator: torch.Generator
    ) -> TextClassifier:
        vocabulary = Vocabulary.of(train.texts)
        network = self.architecture(len(vocabulary), len(train.classes), generator=generator)
        self.fit(network, vocabulary.tokens(train), objective, generator=generator)
        return TextClassifier(vocabulary, network).eval()


@torch.no_grad()
def text_logits(model: nn.Module, texts: Iterable[str]) -> Tensor:
    """Logits (N, K) of many texts on the CPU, some hundreds a pass; ValueError for what are no texts (`as_texts`)."""
    texts = as_texts(texts)
    return torch.cat([model(texts[start : start + BATCH]).cpu() for start in range(0, len(texts), BATCH)])


def _drawn(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """All weights drawn anew from `generator`; the vector of `PAD` is zero."""
    initialise(network, generator)
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1, generator=generator)
            with torch.no_grad():
                module.weight[PAD].zero_()
    return network
