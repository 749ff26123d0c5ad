"""Kills under load: `python -m benchmarks.service_kills --kills 100` writes service_kills.json.

Each time SIGKILL meets a worker, the store or the service itself, in turn, while clients ask. Afterwards every id of a
quarantined row that a client was told must be in the quarantine, the ledger must hold, and a limit that was used up
before the first kill must still be used up.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from aisec_lab.trust import Ledger, read_verifying_key, verify
from aisec_lab.workbench.project_ledger import FOLDER
from aisec_lab.workbench.service.database import DATABASE, Database
from benchmarks.served_project import STATE, Running, ServedProject, running

OUT = Path(__file__).with_suffix(".json")
EACH = 20  # requests that every key may make; those of the load have one key for each client and moment
CLIENTS = 4
PAUSE = 2.0  # seconds of load before each kill, at most


class Load(threading.Thread):
    """A client that asks again and again, and notes what it was told.

    Args:
        service: that is asked; after a restart the next one.
        role: whose key it shows.
    """

    def __init__(self, service: Running, role: str) -> None:
        super().__init__(daemon=True)
        self.service, self.role, self.stopped = service, role, threading.Event()
        self.told: list[str] = []
        self.statuses: Counter[int | str] = Counter()

    def run(self) -> None:
        body = {"inputs": self.service.project.inputs[:20].tolist()}
        while not self.stopped.is_set():
            try:
                with closing(self.service.connect()) as connection:
                    while not self.stopped.is_set():
                        status, answer = self.service.ask("POST", "/score", body, role=self.role, connection=connection)
                        self.statuses[status] += 1
                        if status == 200:
                            self.told += [each["quarantined"] for each in answer["answers"] if "quarantined" in each]
            except (OSError, HTTPException, ValueError) as error:  # the connection died with its worker
                self.statuses[type(error).__name__] += 1
                time.sleep(0.05)


def victim(service: Running, kind: str) -> int:
    """The process to kill."""
    if kind == "service":
        return service.process.pid
    word = "multiprocessing.spawn" if kind == "worker" else "valkey-server"
    living = [one for one in psutil.Process(service.process.pid).children() if one.status() != psutil.STATUS_ZOMBIE]
    return random.choice([one.pid for one in living if word in " ".join(one.cmdline())])


def used_up(service: Running) -> bool:
    """Whether the key whose limit was used up at the beginning is refused for it; the store may just be coming back."""
    for _ in range(100):
        try:
            status, _ = service.ask("GET", "/model", role="spent")
        except (OSError, HTTPException):
            status = 0
        if status not in (0, 503):
            return status == 429
        time.sleep(0.1)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    given = parser.parse_args()
    kinds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        project = ServedProject.make(Path(folder) / "project")
        wide = {"requests": 10**8, "seconds": 3600}
        project.configure(
            limits={"per_credential": {"requests": EACH, "seconds": 36_000}, "all_credentials": wide},
            guard={"fpr": 0.2, "budget": 1e9},
        )
        project.keys["spent"], _ = project.credentials.add("spent", "client")
        told: list[str] = []
        statuses: Counter[int | str] = Counter()
        limits_kept = done = 0
        while True:
            with running(project) as service:
                if done:  # it was the service that was killed
                    limits_kept += used_up(service)
                else:
                    assert Counter(service.ask("GET", "/model", role="spent")[0] for _ in range(EACH)) == {200: EACH}
                while done < given.kills:
                    kind = ("worker", "store", "service")[done % 3]
                    names = [f"client{done}.{place}" for place in range(CLIENTS)]
                    for name in names:
                        project.keys[name], _ = project.credentials.add(name, "client")
                    load = [Load(service, name) for name in names]
                    for client in load:
                        client.start()
                    time.sleep(random.random() * PAUSE)
                    os.kill(victim(service, kind), signal.SIGKILL)
                    kinds[kind] += 1
                    done += 1
                    time.sleep(0.2)
                    for client in load:
                        client.stopped.set()
                    for client in load:
                        client.join()
                        told += client.told
                        statuses += client.statuses
                    print(done, kind, len(told), flush=True)
                    if kind == "service":
                        service.process.wait()
                        break
                    limits_kept += used_up(service)
                else:
                    break
        kept = {row[0] for row in Database(project.root / STATE / DATABASE).read("SELECT id FROM quarantine")}
        verdict = verify(Ledger(project.root / FOLDER), read_verifying_key(project.public_key))
        results: dict[str, Any] = {
            "kills": kinds,
            "rows_told_to_be_quarantined": len(told),
            "of_them_lost": len(set(told) - kept),
            "limits_kept_after_so_many_kills": limits_kept,
            "ledger": str(verdict),
            "answers": {str(status): number for status, number in statuses.items()},
        }
    print(json.dumps(results, indent=1))
    OUT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
