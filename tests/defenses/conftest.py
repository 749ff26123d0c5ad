"""What the tests of defenses share."""

from tests.defenses_fixtures import classifier, splits

__all__ = ["classifier", "splits"]
