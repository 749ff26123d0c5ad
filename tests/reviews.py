"""The made-up reviews and a classifier of them, which the tests of several floors share."""

from functools import cache

import torch

from aisec_lab.data import Texts, TextSplits
from aisec_lab.data.text_readers import reviews
from aisec_lab.defenses import Standard
from aisec_lab.models import BagOfEmbeddings, Fit, TextClassifier, TextTraining

TRAINING = TextTraining(BagOfEmbeddings(), Fit(epochs=20, learning_rate=0.01))


def seed(number: int) -> torch.Generator:
    """A new generator for a number."""
    return torch.Generator().manual_seed(number)


@cache
def splits() -> TextSplits:
    """Training and test reviews."""
    raw = reviews([])
    parts = {
        split: Texts(tuple(x.tolist()), torch.from_numpy(y), raw.classes, "reviews")
        for split, (x, y) in raw.splits.items()
    }
    return TextSplits(parts["train"], parts["test"], {"name": "reviews"})


@cache
def classifier() -> TextClassifier:
    """A bag of embeddings, trained for some seconds."""
    return TRAINING(splits().train, Standard(), generator=seed(0))
