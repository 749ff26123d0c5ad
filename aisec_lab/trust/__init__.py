"""Trust in data and models: the ledger of what was done to them, the vault that keeps them, who may do what."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
