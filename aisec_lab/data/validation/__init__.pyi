from .checks import Checks
from .ingestion import Ingestion, stopped_at
from .layout import RefusedError
from .reference import Reference
from .verdict import Verdict

__all__ = ["Checks", "Ingestion", "Reference", "RefusedError", "Verdict", "stopped_at"]
