"""Inference attacks: what a model gives away of the rows that it was trained on."""
