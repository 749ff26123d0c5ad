"""Attacks that only query the model: by its scores (Square, NES, SimBA) or by its decisions."""
