"""What the tests of attacks share."""

from tests.attacks_fixtures import cnn, digits, linear, plain, rows, sample, seed

__all__ = ["cnn", "digits", "linear", "plain", "rows", "sample", "seed"]
