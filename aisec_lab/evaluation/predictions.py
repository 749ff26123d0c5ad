"""Predicted classes of a model as it is used: a random one with new draws, one with a reject option rejecting."""

import torch
from torch import Tensor, nn

from aisec_lab.core.validation import has_reject_option
from aisec_lab.models import logits_of, seeded

FRESH = 2**31  # seed of the draws that score a random model, which no attack has seen
REJECTED = -1  # in place of a class, for a rejected input


def predicted_classes(model: nn.Module, x: Tensor, classes: int) -> Tensor:
    """Predicted classes. A random model gets draws that no attack has seen.

    Args:
        model: classifier. One with a reject option, as its last column, has a true attribute `rejects`.
        x: inputs (N, *input).
        classes: number of classes.

    Returns:
        Classes (N,), int64; `REJECTED` for rejected inputs.

    Raises:
        ValueError: the model has another number of columns, or answers NaN.
    """
    answers, columns = _predict(model, x)
    rejects = has_reject_option(model)
    if len(answers) and columns != classes + rejects:
        option = ", and a reject option" if rejects else ""
        raise ValueError(
            f"the model answers with {columns} logits, the data set names {classes} classes{option}: give "
            "the model as many, or, where its last one rejects, an attribute rejects = True"
        )
    return torch.where(answers == classes, REJECTED, answers)


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The columns of the largest logits, the reject option's included. A random model gets new draws.

    Args:
        model: classifier.
        x: inputs (N, *input).

    Returns:
        Columns (N,), int64.

    Raises:
        ValueError: a model with a single logit, or NaN.
    """
    answers, columns = _predict(model, x)
    if columns < 2:
        raise ValueError(
            "a classifier has at least two logits, got one: for a binary model wrap it in aisec_lab.models.TwoLogits"
        )
    return answers


def _predict(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """The columns (N,) of the largest logits, and how many columns there are."""
    with seeded(model, torch.Generator().manual_seed(FRESH)):
        logits = logits_of(model, x)
    if logits.ndim != 2:
        raise ValueError(f"a classifier answers with logits (N, K), got {tuple(logits.shape)}: wrap it so that it does")
    return logits.argmax(1), logits.shape[1]
