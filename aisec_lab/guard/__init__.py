"""The runtime guard: filters before a model in service, monitors of its traffic, thresholds that follow it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
