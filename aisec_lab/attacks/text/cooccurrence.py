"""What training texts alone say of words: the company they keep, and the classes they speak for."""

import numpy as np

from aisec_lab.data import Texts
from aisec_lab.models.words import SPECIAL, Vocabulary, tokenise

WINDOW = 2  # words to either side that count as company
CONTEXTS = 1000  # the most frequent words; company of others is not counted
DIMENSIONS = 50


def context_vectors(train: Texts, vocabulary: Vocabulary) -> np.ndarray:
    """Vectors whose cosine says how alike the company of two words is.

    Positive pointwise mutual information of words and contexts, projected on its first singular vectors (Levy &
    Goldberg, 2014, "Neural word embedding as implicit matrix factorization", section 4.2).

    Args:
        train: texts.
        vocabulary: of V words.

    Returns:
        Unit vectors (V, 50 at most), float64; zero for a word without company.
    """
    contexts = min(CONTEXTS, len(vocabulary.words))
    counts = np.zeros((len(vocabulary.words), contexts))
    for text in train.texts:
        numbers = [vocabulary.numbers.get(token, 0) - len(SPECIAL) for token in tokenise(text)]
        for place, word in enumerate(numbers):
            for company in numbers[max(0, place - WINDOW) : place] + numbers[place + 1 : place + 1 + WINDOW]:
                if word >= 0 and 0 <= company < contexts:
                    counts[word, company] += 1
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True)
    with np.errstate(divide="ignore"):
        information = np.where(counts > 0, np.log(counts * counts.sum()) - np.log(np.maximum(expected, 1)), 0)
    positive = np.maximum(information, 0)
    _, directions = np.linalg.eigh(positive.T @ positive)  # those of the largest singular values come last
    vectors = positive @ directions[:, -DIMENSIONS:]
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
    for text, label in zip(train.texts, train.y.tolist(), strict=True):
        known = {vocabulary.numbers.get(token, 0) - len(SPECIAL) for token in tokenise(text)}
        held[[word for word in known if word >= 0], label] += 1
    logs = np.log(held / (np.bincount(train.y.numpy(), minlength=len(train.classes)) + 2))
    return logs - logs.mean(1, keepdims=True)
