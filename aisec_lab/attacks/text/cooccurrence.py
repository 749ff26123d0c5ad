"""What training texts alone say of words: the company they keep, and the classes they speak for."""

from collections.abc import Iterable

import numpy as np
from scipy.linalg import eigh

from aisec_lab.data import Texts
from aisec_lab.models.words import SPECIAL, Vocabulary, tokenise

CONTEXTS = 300  # the most frequent words; company of others is not counted
DIMENSIONS = 100
SMOOTHING = 0.75  # the exponent of the contexts' frequencies: rare ones would pass for telling


def numbered(texts: Iterable[str], vocabulary: Vocabulary) -> list[np.ndarray]:
    """The places of each text's words in the vocabulary, from 0, int64; -1 for a word that is not there."""
    return [
        np.array([max(vocabulary.numbers.get(token, 0) - len(SPECIAL), -1) for token in tokenise(text)])
        for text in texts
    ]


def context_vectors(texts: Iterable[str], vocabulary: Vocabulary) -> np.ndarray:
    """Vectors whose cosine says how alike the words are that stand right before and right after two words.

    Positive pointwise mutual information of words and contexts, a word before and the same word after being two
    contexts, so that words of one grammatical kind are alike; then the first singular vectors, by the square root of
    the singular values (Levy, Goldberg & Dagan, 2015, "Improving distributional similarity with lessons learned from
    word embeddings", section 3: positional contexts, smoothed contexts, eigenvalue weighting).

    Args:
        texts: of words.
        vocabulary: of V words.

    Returns:
        Unit vectors (V, 100 at most), float64; zero for a word without company.
    """
    contexts = min(CONTEXTS, len(vocabulary.words))
    counts = np.zeros((len(vocabulary.words), 2 * contexts))
    for places in numbered(texts, vocabulary):
        for side, word, company in ((0, places[1:], places[:-1]), (contexts, places[:-1], places[1:])):
            counted = (word >= 0) & (company >= 0) & (company < contexts)
            np.add.at(counts, (word[counted], side + company[counted]), 1)
    frequency = counts.sum(0) ** SMOOTHING
    expected = counts.sum(1, keepdims=True) * frequency / max(frequency.sum(), 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = np.where(counts > expected, np.log(counts / expected), 0)
    first = max(0, 2 * contexts - DIMENSIONS)
    values, directions = eigh(positive.T @ positive, subset_by_index=[first, 2 * contexts - 1])
    vectors = positive @ directions / np.maximum(values, 1e-12) ** 0.25  # U S^0.5, the values being S^2
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def class_evidence(train: Texts, vocabulary: Vocabulary) -> np.ndarray:
    """How much each word speaks for each class.

    Args:
        train: texts and their classes.
        vocabulary: of V words.

    Returns:
        Logarithms of the share of each class's texts that hold the word, counts raised by one, minus their mean over
        the classes: (V, K), in nats; 0 for a word that speaks for none.
    """
    held = np.ones((len(vocabulary.words), len(train.classes)))
    for places, label in zip(numbered(train.texts, vocabulary), train.y.tolist(), strict=True):
        held[np.unique(places[places >= 0]), label] += 1
    logs = np.log(held / (np.bincount(train.y.numpy(), minlength=len(train.classes)) + 2))
    return logs - logs.mean(1, keepdims=True)
