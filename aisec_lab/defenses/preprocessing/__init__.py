"""Defenses that change the inputs before the model sees them."""
