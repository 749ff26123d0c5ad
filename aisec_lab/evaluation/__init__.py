"""Evaluation: from outcomes of attacks and defenses to the table, its figures, and the comparison of claims."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
