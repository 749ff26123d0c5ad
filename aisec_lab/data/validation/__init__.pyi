from .checks import Checks
from .dictionary import Field, read_dictionary
from .ingestion import Ingestion, stopped_at
from .layout import RefusedError
from .reference import Reference
from .result import IngestionResult

__all__ = [
    "Checks",
    "Field",
    "Ingestion",
    "IngestionResult",
    "Reference",
    "RefusedError",
    "read_dictionary",
    "stopped_at",
]
