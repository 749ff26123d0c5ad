"""What every room stands on: input validation, generators and keyed noise, intervals, files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
