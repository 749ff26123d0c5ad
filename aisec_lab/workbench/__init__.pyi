from .configuration import config_hash, configure, visible

__all__ = ["config_hash", "configure", "visible"]
