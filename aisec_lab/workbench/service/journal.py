"""From many refusals to few entries of the ledger: one for the first of a kind in a minute, one for the rest of it."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aisec_lab.trust import Ledger, LedgerChange
from aisec_lab.workbench.service.database import Database

COUNT = """
INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (minute, who, action, object, why)
DO UPDATE SET count = count + excluded.count
"""
DUE = """
SELECT * FROM events WHERE written = 0 OR (count > written AND minute < ?)
ORDER BY minute, who, action, object, why
"""
WRITTEN = """
UPDATE events SET written = ? WHERE minute = ? AND who = ? AND action = ? AND object = ? AND why = ?
"""
DONE = "DELETE FROM events WHERE count = written AND minute < ?"


class Event(NamedTuple):
    """Something that the ledger counts.

    Args:
        who: a credential's name; whoever shows none is "nobody", so that invented keys make no entries of their own.
        action: "refuse" or "quarantine".
        object: of the policy, such as `models/cnn`.
        why: one of a fixed set of reasons; it holds nothing that a stranger chose.
    """

    who: str
    action: str
    object: str
    why: str


@dataclass(frozen=True)
class Journal:
    """Counts the events of one worker in memory, and moves the counts to the shared file.

    An append to the ledger reads all of it and waits for the disk: one for each request of a flood would be a second
    attack. What was counted and not yet moved is lost if the worker is killed; `interval` bounds that.

    Args:
        database: that the workers share.
        interval: seconds between two moves.
    """

    database: Database
    interval: float = 0.25
    _counts: Counter[tuple[str, Event]] = field(default_factory=Counter, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, event: Event) -> None:
        """Count an event of this minute."""
        with self._lock:
            self._counts[_minute(time.time()), event] += 1

    def flush(self) -> None:
        """Move the counts to the shared file."""
        with self._lock:
            counts = dict(self._counts)
            self._counts.clear()
        if counts:
            with self.database.transaction() as connection:
                connection.executemany(COUNT, [(minute, *event, n) for (minute, event), n in counts.items()])


@dataclass(frozen=True)
class Bookkeeper:
    """Writes what all workers counted into the ledger; runs in one process of the service.

    A kill between an entry and the note that it was written repeats the entry, with the same minute and count.

    Args:
        database: that the workers share.
        ledger, key: of the project, and its private key.
    """

    database: Database
    ledger: Ledger
    key: Ed25519PrivateKey = field(repr=False)

    def write(self, *, now: float | None = None) -> int:
        """Append what is due: each kind of event at once when it is new in its minute, the rest when that is over.

        Args:
            now: seconds since 1970; None for the clock.

        Returns:
            How many entries were appended.
        """
        minute = _minute(time.time() if now is None else now)
        due = self.database.read(DUE, minute)
        for row in due:
            when, who, action, obj, why, count, written = row
            assert isinstance(count, int)
            assert isinstance(written, int)
            more = "more " if written else ""
            times = f"{count - written} {more}in the minute {when}"
            self.ledger.append(LedgerChange(str(who), str(action), str(obj), f"{why}: {times}"), self.key)
            with self.database.transaction() as connection:
                connection.execute(WRITTEN, (count, when, who, action, obj, why))
        with self.database.transaction() as connection:
            connection.execute(DONE, (minute,))
        return len(due)

    def finish(self) -> None:
        """Append all that was counted, as if its minute were over: the service stops."""
        self.write(now=time.time() + 60)


class Every(threading.Thread):
    """Calls a function again and again in a thread of its own, until `stop`, and then once more.

    Args:
        seconds: between two calls.
        call: what to do; an error of it is given to `failed`, and the next call comes all the same.
        failed: told of an error.
    """

    def __init__(self, seconds: float, call: Callable[[], object], failed: Callable[[Exception], object]) -> None:
        super().__init__(daemon=True)
        self.seconds, self.call, self.failed = seconds, call, failed
        self._stopped = threading.Event()

    def run(self) -> None:
        """The loop."""
        while True:
            stopped = self._stopped.wait(self.seconds)
            try:
                self.call()
            except Exception as error:  # a full disk must not end the records for good
                self.failed(error)
            if stopped:
                return

    def stop(self) -> None:
        """End it after one last call, and wait for that."""
        self._stopped.set()
        self.join()


def _minute(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")
