"""Numbers that monitors watch in the answers of a model."""

import torch
from torch import Tensor


def confidence(logits: Tensor) -> Tensor:
    """The largest probability of each answer (Hendrycks & Gimpel, 2017, arXiv:1610.02136).

    Args:
        logits: answers of a classifier (N, K), floating point.

    Returns:
        Shape (N,), in [1/K, 1], float64.
    """
    return torch.softmax(logits.double(), 1).amax(1)


def entropy(logits: Tensor) -> Tensor:
    """The entropy of the probabilities of each answer, in nats.

    Args:
        logits: answers of a classifier (N, K), floating point.

    Returns:
        Shape (N,), in [0, log K], float64.
    """
    return torch.special.entr(torch.softmax(logits.double(), 1)).sum(1)
