"""Is this number to be trusted? A verdict beside every robust accuracy."""

from aisec_lab.evaluation.diagnostics.diagnosis import Diagnosis, diagnose
from aisec_lab.evaluation.diagnostics.findings import PAGES, Finding, Page

__all__ = ["PAGES", "Diagnosis", "Finding", "Page", "diagnose"]
