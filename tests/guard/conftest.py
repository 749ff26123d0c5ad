"""Data, a trained classifier and calibrated filters that the tests of the guard share."""

import pytest

from aisec_lab.defenses import Energy, FeatureSqueezing, Mahalanobis, NearestNeighbours
from aisec_lab.guard import calibrated_filters
from tests.defenses_fixtures import classifier, splits

__all__ = ["classifier", "filters", "splits"]

DETECTORS = {
    "energy": Energy(),
    "mahalanobis": Mahalanobis(),
    "neighbours": NearestNeighbours(),
    "squeezing": FeatureSqueezing(),
}


@pytest.fixture(scope="session")
def filters(splits, classifier):
    """Four filters of one model, each with a false positive rate of 5 %."""
    return calibrated_filters(DETECTORS, classifier, splits.train, splits.splits["clean"], 0.05)
