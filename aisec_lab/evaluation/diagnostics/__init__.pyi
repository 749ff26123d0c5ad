from .diagnosis import Diagnosis, diagnose
from .results import PAGES, CheckInfo, CheckResult

__all__ = ["PAGES", "CheckInfo", "CheckResult", "Diagnosis", "diagnose"]
