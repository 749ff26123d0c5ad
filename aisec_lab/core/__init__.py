"""Code that all packages share: noise keyed by row, confidence intervals, binomial tests, atomic file writes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
