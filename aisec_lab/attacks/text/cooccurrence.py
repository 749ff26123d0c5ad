"""Statistics of words in training texts: which words occur next to them, and which classes they indicate."""

from collections.abc import Iterable

import numpy as np
from scipy.linalg import eigh

from aisec_lab.data import Texts
from aisec_lab.models.words import SPECIAL, Vocabulary, tokenise

CONTEXTS = 300  # the most frequent words; other neighbours are not counted
DIMENSIONS = 100
SMOOTHING = 0.75  # exponent of the contexts' frequencies, which lowers the weight of rare contexts


def word_indices(texts: Iterable[str], vocabulary: Vocabulary) -> list[np.ndarray]:
    """For each text, the indices of its words in the vocabulary, from 0, int64; -1 for unknown words."""
    return [
        np.array([max(vocabulary.numbers.get(token, 0) - len(SPECIAL), -1) for token in tokenise(text)])
        for text in texts
    ]


def context_vectors(texts: Iterable[str], vocabulary: Vocabulary) -> np.ndarray:
    """Embed words so that the cosine of two vectors measures how similar the neighbouring words of two words are.

    The positive pointwise mutual information of words and contexts is reduced to its first singular vectors, weighted
    by the square roots of the singular values. A word before and the same word after are two contexts, so that words
    of one part of speech are similar (Levy, Goldberg & Dagan, 2015, "Improving distributional similarity with lessons
    learned from word embeddings", section 3: positional contexts, smoothed contexts, eigenvalue weighting).

    Args:
        texts: texts of words.
        vocabulary: of V words.

    Returns:
        Unit vectors (V, at most 100), float64; zero for a word without neighbours in the vocabulary's contexts.
    """
    contexts = min(CONTEXTS, len(vocabulary.words))
    counts = np.zeros((len(vocabulary.words), 2 * contexts))
    for places in word_indices(texts, vocabulary):
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
    """Measure how strongly each word indicates each class.

    Args:
        train: texts and their K classes.
        vocabulary: of V words.

    Returns:
        Evidence (V, K) in nats: the logarithm of the share of each class's texts that contain the word, with add-one
        smoothing, minus the mean of these over the classes; 0 for a word that indicates no class.
    """
    held = np.ones((len(vocabulary.words), len(train.classes)))
    for places, label in zip(word_indices(train.texts, vocabulary), train.y.tolist(), strict=True):
        held[np.unique(places[places >= 0]), label] += 1
    logs = np.log(held / (np.bincount(train.y.numpy(), minlength=len(train.classes)) + 2))
    return logs - logs.mean(1, keepdims=True)
