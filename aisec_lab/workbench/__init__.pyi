from .configuration import config_hash, configure, visible
from .names import class_name, defense_name, model_name

__all__ = ["class_name", "config_hash", "configure", "defense_name", "model_name", "visible"]
