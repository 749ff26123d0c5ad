"""Evasion: inputs that are changed a little so that a model misclassifies them."""
