from .diagnosis import Diagnosis, diagnose
from .findings import PAGES, Finding, Page

__all__ = ["PAGES", "Diagnosis", "Finding", "Page", "diagnose"]
