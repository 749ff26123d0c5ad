"""Diagnosis of robust accuracies: reasons to doubt that an attack was strong enough."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
