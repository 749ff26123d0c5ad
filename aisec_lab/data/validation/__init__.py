"""Incoming data: compared with the version accepted last, and divided into accepted and quarantined rows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
