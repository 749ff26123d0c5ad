"""Which version of a model the ledger vouches for, and which one was good before it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aisec_lab.trust import PUBLIC_KEY, Ledger, LedgerEntry, read_verifying_key, verify
from aisec_lab.workbench.project_ledger import VERSIONS


@dataclass(frozen=True)
class Versions:
    """The versions of one model, as a ledger has them that holds.

    Args:
        name: of the object, such as `models/cnn`.
        entries: all about it, in order.
    """

    name: str
    entries: tuple[LedgerEntry, ...]

    @property
    def current(self) -> LedgerEntry:
        """The entry that vouches for what should lie there now; ValueError where none does."""
        last = self.entries[-1].after if self.entries else None
        vouching = (entry for entry in reversed(self.entries) if entry.action in VERSIONS and entry.after == last)
        if last is None or (entry := next(vouching, None)) is None:
            raise ValueError(
                f"no entry of the ledger vouches for {self.name}: after a look at it, "
                f"`aisec ledger append --what accept --object {self.name} --why …`"
            )
        return entry

    @property
    def last_good(self) -> LedgerEntry:
        """The newest accepted version that is not the current one, and was never rolled back from; else ValueError."""
        current = self.current.after
        bad = {entry.before for entry in self.entries if entry.action == "rollback"} | {current}
        for entry in reversed(self.entries):
            if entry.action in VERSIONS and entry.after is not None and entry.after not in bad:
                return entry
        raise ValueError(f"the ledger has no other good version of {self.name} to go back to")


def read_versions(name: str, folder: Path, public_key: Path | None = None) -> Versions:
    """The versions of a model, from a ledger of which every signature was checked.

    Args:
        name: of the object.
        folder: of the ledger.
        public_key: the reader's own copy; None for the one beside the ledger.

    Raises:
        FileNotFoundError: no ledger, or no key.
        ValueError: a ledger that does not hold.
    """
    record = Ledger(folder)
    verdict = verify(record, read_verifying_key(public_key or folder / PUBLIC_KEY))
    if not verdict.intact:
        raise ValueError(f"the ledger does not hold, nothing is served: {verdict}")
    return Versions(name, tuple(_about(name, record.read().lines[: verdict.size])))


def _about(name: str, lines: Iterable[bytes]) -> Iterable[LedgerEntry]:
    return (entry for entry in map(LedgerEntry.parse, lines) if entry.object == name)
