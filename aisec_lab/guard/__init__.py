"""The runtime guard: filters before a model in service, and the chain that runs them within a time budget."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
