"""Detectors of adversarial inputs, and classifiers that reject what is detected."""
