"""Configuration, execution, reports: what turns notebooks into a pipeline."""

from aisec_lab.workbench.configuration import config_hash, configure, visible

__all__ = ["config_hash", "configure", "visible"]
