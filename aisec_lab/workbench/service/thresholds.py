"""Thresholds that a person has set while the service runs, for one version of the model."""

from aisec_lab.workbench.service.database import Database
from aisec_lab.workbench.service.settings import GuardSettings


def read_thresholds(database: Database, digest: str) -> dict[str, float]:
    """The thresholds by detector; another version of the model has its own scores, and so none of these."""
    rows = database.read("SELECT filter, value FROM thresholds WHERE digest = ?", digest)
    return {str(name): float(str(value)) for name, value in rows}


def set_threshold(database: Database, digest: str, name: str, value: float) -> None:
    """Set the threshold of a detector; workers read it when they load again."""
    with database.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO thresholds VALUES (?, ?, ?)", (digest, name, value))


def find_threshold_error(settings: GuardSettings | None, name: str, value: float) -> str | None:
    """Why a person may not set this threshold, in a line; None if they may."""
    ranges = settings.ranges if settings else {}
    if name not in ranges:
        return f"filter: guard.ranges of the settings has {', '.join(sorted(ranges)) or 'none'}"
    low, high = ranges[name]
    return None if low <= value <= high else f"threshold: {name} is in [{low:g}, {high:g}]"
