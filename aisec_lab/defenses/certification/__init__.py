"""Randomised smoothing, and the radius that it certifies."""
