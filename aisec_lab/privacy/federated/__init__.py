"""Federated learning: clients, aggregation rules, secure aggregation, and DP for rows and for whole clients."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
