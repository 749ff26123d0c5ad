"""Evasion: inputs that are changed a little until the model is wrong about them."""
