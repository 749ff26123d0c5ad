"""Attacks on models: evasion, poisoning, extraction and inference, and evasion of text classifiers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
