"""Suspicious rows, kept: what they were is sealed by the vault, and a person may release them to the model."""

import io
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from safetensors.torch import load, save
from torch import Tensor

from aisec_lab.trust import PrivateKey, PublicKey
from aisec_lab.trust.records import now
from aisec_lab.trust.vault_format import FILE, read_sealed, write_sealed
from aisec_lab.workbench.service.database import Database

COLUMNS = "id, time, client, reason, score, state, released_by, answer"
INPUT = "input"


@dataclass(frozen=True)
class Suspicion:
    """A row that the guard rejected.

    Args:
        x: the row, (*input).
        client: name of the credential that sent it.
        reason: of the guard.
        score: of the guard.
    """

    x: Tensor = field(repr=False)
    client: str
    reason: str
    score: float


@dataclass(frozen=True)
class QuarantineRecord:
    """What is known of a quarantined row without its seal.

    Args:
        id: 32 hexadecimal digits, which nobody can guess.
        time: when it came, UTC, in ISO 8601.
        client, reason, score: those of its `Suspicion`.
        state: `held` or `released`.
        released_by: name of the person, or None.
        answer: of the model after release, as JSON, or None.
    """

    id: str
    time: str
    client: str
    reason: str
    score: float
    state: str
    released_by: str | None
    answer: str | None

    def as_json(self) -> dict[str, object]:
        """Its fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Quarantine:
    """The quarantine of a service.

    Args:
        database: that the workers share; rows are on the disk when `keep` returns.
        key: seals rows; the service holds no key that opens them.
        capacity: bytes of all sealed rows together.
    """

    database: Database
    key: PublicKey
    capacity: int

    def keep(self, suspicions: Sequence[Suspicion]) -> list[str | None]:
        """Seal rows and write them to the disk, all or none.

        Returns:
            The id of each; None for one that no longer fits.
        """
        ids: list[str | None] = []
        with self.database.transaction() as connection:
            (used,) = connection.execute("SELECT bytes FROM sealed").fetchone()
            for each in suspicions:
                sink = io.BytesIO()
                write_sealed(io.BytesIO(save({INPUT: each.x.contiguous()})), sink, self.key, inside=FILE)
                sealed = sink.getvalue()
                if used + len(sealed) > self.capacity:
                    ids.append(None)
                    continue
                used += len(sealed)
                ids.append(secrets.token_hex(16))
                values = (ids[-1], now(), each.client, each.reason, each.score, sealed)
                connection.execute("INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, 'held', NULL, NULL, ?)", values)
            connection.execute("UPDATE sealed SET bytes = ?", (used,))
        return ids

    def records(self, *, most: int = 1000) -> list[QuarantineRecord]:
        """The newest records, newest first."""
        query = f"SELECT {COLUMNS} FROM quarantine ORDER BY rowid DESC LIMIT ?"
        return [QuarantineRecord(*row) for row in self.database.read(query, most)]  # type: ignore[arg-type]

    def held(self) -> int:
        """How many rows wait for a person."""
        ((count,),) = self.database.read("SELECT COUNT(*) FROM quarantine WHERE state = 'held'")
        assert isinstance(count, int)
        return count

    def record(self, identity: str) -> QuarantineRecord:
        """One record; LookupError where there is none of that id."""
        rows = self.database.read(f"SELECT {COLUMNS} FROM quarantine WHERE id = ?", identity)
        if not rows:
            raise LookupError(f"no quarantined row {identity}")
        return QuarantineRecord(*rows[0])  # type: ignore[arg-type]

    def open(self, identity: str, key: PrivateKey) -> Tensor:
        """The row (*input) under its seal.

        Raises:
            LookupError: no such row.
            ValueError: another key, or a seal that was broken.
        """
        rows = self.database.read("SELECT sealed FROM quarantine WHERE id = ?", identity)
        if not rows:
            raise LookupError(f"no quarantined row {identity}")
        sealed, plain = rows[0][0], io.BytesIO()
        assert isinstance(sealed, bytes)
        read_sealed(io.BytesIO(sealed), plain, key)
        return load(plain.getvalue())[INPUT]

    def release(self, identity: str, person: str, answer: str) -> bool:
        """Note that a person released a row and what the model answered; False if another one was quicker."""
        with self.database.transaction() as connection:
            done = connection.execute(
                "UPDATE quarantine SET state = 'released', released_by = ?, answer = ? WHERE id = ? AND state = 'held'",
                (person, answer, identity),
            )
            return bool(done.rowcount)
