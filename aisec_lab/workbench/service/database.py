"""What the workers of a service share on disk: one SQLite file, which a kill at any moment leaves whole."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DATABASE = "service.db"  # in the folder of the service's state
TABLES = """
CREATE TABLE IF NOT EXISTS totp (person TEXT PRIMARY KEY, step INTEGER, failures INTEGER, since REAL);
CREATE TABLE IF NOT EXISTS events (
  minute TEXT, who TEXT, action TEXT, object TEXT, why TEXT, count INTEGER, written INTEGER,
  PRIMARY KEY (minute, who, action, object, why));
CREATE TABLE IF NOT EXISTS quarantine (
  id TEXT PRIMARY KEY, time TEXT, client TEXT, reason TEXT, score REAL,
  state TEXT, released_by TEXT, answer TEXT, sealed BLOB);
CREATE INDEX IF NOT EXISTS state ON quarantine (state);
CREATE TABLE IF NOT EXISTS sealed (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER);
INSERT OR IGNORE INTO sealed VALUES (1, 0);
CREATE TABLE IF NOT EXISTS thresholds (digest TEXT, filter TEXT, value REAL, PRIMARY KEY (digest, filter));
CREATE TABLE IF NOT EXISTS workers (pid INTEGER PRIMARY KEY, digest TEXT);
"""


@dataclass(frozen=True)
class Database:
    """The file; each `transaction` is all or nothing, and on the disk when it returns.

    Args:
        path: of the file; its folder exists.
    """

    path: Path

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that alone may write until the end; an error undoes what was done."""
        connection = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                yield connection
        finally:
            connection.close()

    def read(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """The rows of a query."""
        connection = sqlite3.connect(self.path, timeout=10)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def create(self) -> None:
        """Make the tables that are not there."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self.path, timeout=10)
        try:
            connection.execute("PRAGMA journal_mode=WAL")  # readers and a writer do not wait for each other
            connection.executescript(TABLES)
        finally:
            connection.close()
        self.path.chmod(0o600)
