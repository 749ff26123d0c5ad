"""Bounds that hold for every input of a ball, by interval arithmetic and by linear relaxation."""
