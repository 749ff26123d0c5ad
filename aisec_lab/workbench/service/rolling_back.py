"""Back to the last good version of the model in service, in all workers, and recorded."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aisec_lab.trust import LedgerEntry
from aisec_lab.workbench.project_ledger import FOLDER
from aisec_lab.workbench.service.database import Database
from aisec_lab.workbench.service.versions import read_versions

PATIENCE = 30.0  # seconds for the command, and again for the workers


@dataclass(frozen=True)
class ModelRollback:
    """Restores the bytes by `aisec model rollback`, in a process of its own: DVC is no part of a worker.

    Args:
        name: of the model's folder.
        root: of the project.
        load_again: tells the workers to load again.
        database: where each worker says what it has loaded.
        ledger_key: a copy of the ledger's public key; None for the one beside the ledger.
    """

    name: str
    root: Path
    load_again: Callable[[], object]
    database: Database
    ledger_key: Path | None = None

    def __call__(self, role: str, why: str) -> LedgerEntry:
        """Go back, and wait until no worker has the former version.

        Args:
            role: of the policy, which must allow it.
            why: for the ledger, with the name of the person.

        Returns:
            The entry of the version that is served now.

        Raises:
            ValueError: there is no good version, the command refused, or a worker did not load it.
        """
        goal = read_versions(self.name, self.root / FOLDER, self.ledger_key).last_good
        words = [
            "model",
            "rollback",
            self.name.partition("/")[2],
            "--to",
            str(goal.index),
            "--why",
            why,
            "--role",
            role,
        ]
        done = subprocess.run(
            [sys.executable, "-m", "aisec_lab", *words],
            cwd=self.root, capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        if done.returncode:
            raise ValueError(
                f"the rollback failed, nothing was changed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
            )
        self.load_again()
        self._wait_for(str(goal.after))
        return goal

    def _wait_for(self, digest: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while waiting := [pid for pid, loaded in loaded_versions(self.database).items() if loaded != digest]:
            if time.monotonic() > deadline:
                raise ValueError(f"the model is back, and {len(waiting)} workers have not loaded it: stop the service")
            time.sleep(0.02)


def note_loaded(database: Database, digest: str | None) -> None:
    """Note what this worker serves; None for nothing."""
    with database.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO workers VALUES (?, ?)", (os.getpid(), digest))


def loaded_versions(database: Database) -> dict[int, str | None]:
    """What each worker that lives serves, by process id."""
    found = {}
    for pid, digest in database.read("SELECT pid, digest FROM workers"):
        assert isinstance(pid, int)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            found[pid] = None if digest is None else str(digest)
    return found
