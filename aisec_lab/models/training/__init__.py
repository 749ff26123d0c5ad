"""The training loop, its resumable state, and training of several models at once."""
