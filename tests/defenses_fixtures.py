"""Data and a trained classifier that the tests of defenses share."""

import pytest
import torch
from sklearn.datasets import load_digits

from aisec_lab.data import Dataset, Splits
from aisec_lab.defenses import Standard
from aisec_lab.models import CNN, Fit


@pytest.fixture(scope="session")
def splits():
    """Digits: 1,000 rows to train on, 397 that no model sees, for detectors, and 400 to test on."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(data.images, dtype=torch.float32)[order, None] / 16
    y = torch.tensor(data.target)[order]
    whole = Dataset(x, y, tuple("0123456789"), "digits")
    cuts = {"train": range(1000), "clean": range(1000, 1397), "test": range(1397, 1797)}
    return Splits({name: whole.subset(torch.tensor(rows)) for name, rows in cuts.items()}, {"name": "digits"})


@pytest.fixture(scope="session")
def classifier(splits):
    """A CNN trained for some seconds."""
    generator = torch.Generator().manual_seed(0)
    model = CNN(width=8, hidden=32)((1, 8, 8), 10, generator=generator)
    Fit(epochs=8, learning_rate=0.01)(model, splits.train, Standard(), generator=generator)
    return model
