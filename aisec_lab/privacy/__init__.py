"""Learning and telling that no single row can sway far: training, releases, what they promise, and audits of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
