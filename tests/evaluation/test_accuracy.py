"""Accuracy against a count by hand."""

import pytest
import torch
from torch import nn

from aisec_lab.data import Dataset
from aisec_lab.evaluation import clean_accuracy, count_correct


@pytest.fixture
def three_of_five() -> tuple[nn.Module, Dataset]:
    """A classifier that answers 1 above one half, and rows of which it gets two wrong."""
    model = nn.Linear(1, 2).eval()
    with torch.no_grad():
        model.weight[:], model.bias[:] = torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, 0.0])
    x = torch.tensor([[0.1], [0.2], [0.6], [0.7], [0.9]])
    return model, Dataset(x, torch.tensor([0, 1, 1, 0, 1]), ("low", "high"), "rows")


def test_a_row_is_right_where_its_class_is_the_likeliest(three_of_five):
    """Counted by hand: rows 1 and 3 are wrong."""
    model, dataset = three_of_five
    assert count_correct(model, dataset) == 3
    row = clean_accuracy(model, dataset, model="linear", attack="none")
    assert (row["metric"], row["value"], row["n"], row["model"]) == ("clean_accuracy", 0.6, 5, "linear")
    assert row["low"] < 0.6 < row["high"]
