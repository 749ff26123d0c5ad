"""Extraction attacks: what of a model can be stolen through its answers."""
