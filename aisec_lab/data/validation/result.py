"""What an ingestion found."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class IngestionResult:
    """What became of an incoming file.

    Args:
        name: of the dataset.
        source_sha256: of the incoming file.
        against: sha256 of the accepted version that it was compared with, or None.
        rows: of the file; each is accepted or quarantined.
        quarantined: how many are.
        reasons: how many rows each reason speaks against; a row may have several.
        drifted: distance and corrected p of each column that has moved.
        unchecked: what was not looked at, and why.
        notes: how the file was read, where people may think otherwise.
        stopped: why nothing is accepted; None where the others are.
    """

    name: str
    source_sha256: str
    against: str | None
    rows: int
    quarantined: int
    reasons: dict[str, int]
    drifted: dict[str, dict[str, float]]
    unchecked: tuple[str, ...]
    notes: tuple[str, ...]
    stopped: str | None

    @property
    def accepted(self) -> int:
        """Rows that become the new version."""
        return 0 if self.stopped else self.rows - self.quarantined

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self) | {"accepted": self.accepted}

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        found = f"{self.quarantined} of {self.rows} rows quarantined" + (f": {reasons}" if reasons else "")
        return f"{self.name} stopped: {self.stopped} ({found})" if self.stopped else f"{self.name}: {found}"
