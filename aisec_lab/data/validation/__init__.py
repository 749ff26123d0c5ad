"""What comes in: held against what was accepted before, and divided into rows that are and rows that wait."""

from aisec_lab.data.validation.checks import Checks
from aisec_lab.data.validation.ingestion import Ingestion, stopped_at
from aisec_lab.data.validation.layout import RefusedError
from aisec_lab.data.validation.reference import Reference
from aisec_lab.data.validation.verdict import Verdict

__all__ = ["Checks", "Ingestion", "Reference", "RefusedError", "Verdict", "stopped_at"]
