from .diagnosis import Diagnosis, diagnose
from .findings import PAGES, CheckInfo, CheckResult

__all__ = ["PAGES", "CheckInfo", "CheckResult", "Diagnosis", "diagnose"]
