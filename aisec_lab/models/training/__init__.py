"""The training loop, its state, and several models trained at once."""
