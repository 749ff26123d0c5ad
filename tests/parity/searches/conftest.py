"""The models and inputs of the attacks' own tests."""

from tests.attacks_fixtures import cnn, digits, linear, sample, seed

__all__ = ["cnn", "digits", "linear", "sample", "seed"]
