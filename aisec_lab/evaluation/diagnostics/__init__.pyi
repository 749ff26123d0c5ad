from .diagnosis import Diagnosis, diagnose
from .results import CHECKS, CheckInfo, CheckResult

__all__ = ["CHECKS", "CheckInfo", "CheckResult", "Diagnosis", "diagnose"]
