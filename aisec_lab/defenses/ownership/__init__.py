"""Whose model is it: marks that are put into a model, fingerprints that it has anyway, and what removes them."""
