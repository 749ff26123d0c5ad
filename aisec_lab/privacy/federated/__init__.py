"""Learning together without pooling the rows: clients, servers, what each may see, and what is promised to whom."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
