"""What comes in: held against what was accepted before, and divided into rows that are and rows that wait."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
