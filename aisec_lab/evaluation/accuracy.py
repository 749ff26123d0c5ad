"""How many answers of a classifier are right."""

from typing import Any

from torch import nn

from aisec_lab.data import Dataset
from aisec_lab.evaluation.table import rate
from aisec_lab.models import logits_of


def count_correct(model: nn.Module, dataset: Dataset) -> int:
    """How many rows of a dataset a classifier gets right.

    Args:
        model: classifier in evaluation mode; inputs (N, *input) in [0, 1] to logits (N, K).
        dataset: rows and their true classes.

    Returns:
        From 0 to `len(dataset)`. A row whose most likely class is another than the true one is wrong.
    """
    return int((logits_of(model, dataset.x).argmax(1) == dataset.y).sum())


def clean_accuracy(model: nn.Module, dataset: Dataset, /, **cell: Any) -> dict[str, Any]:
    """The row of the table for a classifier's accuracy on inputs that nobody has changed.

    Args:
        model: classifier in evaluation mode.
        dataset: rows that it was not trained on.
        cell: the other columns of the table, `model` among them.

    Returns:
        The row, with the metric `clean_accuracy` and its Clopper-Pearson interval.
    """
    return rate("clean_accuracy", count_correct(model, dataset), len(dataset), **cell)
