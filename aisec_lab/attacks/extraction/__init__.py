"""Extraction attacks: steal a model through its published outputs."""
