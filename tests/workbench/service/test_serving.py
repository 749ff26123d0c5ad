"""`aisec serve` as it runs: two workers, mutual TLS, on loopback; each test has keys of its own."""

import os
import signal
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from itertools import count

import psutil
import pyotp
import pytest

from aisec_lab.trust import Ledger, read_verifying_key, verify
from aisec_lab.workbench.project_ledger import FOLDER
from benchmarks.served_project import PASSPHRASE, PATIENCE, STATE, Running, ServedProject, running

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("service")]
SETTINGS = {
    "limits": {"per_credential": {"requests": 100, "seconds": 3600}, "patience": 10.0},
    "guard": {"fpr": 0.2, "budget": 1e9},
    "requests": {"seconds": 60},
    "tls": {"client_certificates": True, "client_ca": str(STATE / "ca.pem")},
}
numbers = count()


@pytest.fixture(scope="module")
def served(made: ServedProject, tmp_path_factory: pytest.TempPathFactory) -> ServedProject:
    project = made.copy(tmp_path_factory.mktemp("serving") / "project")
    project.configure(**SETTINGS)
    return project


@pytest.fixture(scope="module")
def service(served: ServedProject) -> Iterator[Running]:
    with running(served) as service:
        yield service


def new_key(service: Running) -> str:
    """The name of a client that nobody has used before."""
    name = f"client{next(numbers)}"
    service.project.keys[name], _ = service.project.credentials.add(name, "client")
    return name


def rows(service: Running, n: int = 1) -> dict[str, object]:
    return {"inputs": service.project.inputs[:n].tolist()}


def is_served(service: Running, role: str, headers: dict[str, str]) -> int:
    return service.ask("GET", "/model", role=role, headers=headers)[0]


def test_openssl_speaks_1_3_and_cannot_speak_1_2(service: Running) -> None:
    state = service.project.root / STATE
    for version, agreed in (("-tls1_3", True), ("-tls1_2", False)):
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{service.port}", version, "-CAfile", state / "ca.pem",
             "-cert", state / "client.pem", "-key", state / "client.key"],
            input="", capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert ("Cipher is TLS_" in done.stdout) is agreed, done.stdout + done.stderr
        assert ("Protocol  : TLSv1.3" in done.stdout or "TLSv1.3, Cipher" in done.stdout) is agreed


def test_without_a_certificate_nobody_is_answered(service: Running) -> None:
    """Not even about health."""
    bare = ssl.create_default_context(cafile=str(service.project.root / STATE / "ca.pem"))
    with pytest.raises((ssl.SSLError, ConnectionError, HTTPException)):
        service.ask("GET", "/health", role=None, connection=service.connect(bare))
    assert service.ask("GET", "/health", role=None) == (200, {"status": "ready"})


def test_exactly_100_of_300_are_admitted_by_two_workers(service: Running) -> None:
    """From many connections at once, each request under another address in X-Forwarded-For."""
    role = new_key(service)
    with ThreadPoolExecutor(4) as pool:
        statuses = pool.map(
            lambda n: is_served(service, role, {"X-Forwarded-For": f"10.0.0.{n}", "X-Real-IP": f"10.1.0.{n}"}),
            range(300),
        )
        assert Counter(statuses) == {200: 100, 429: 200}


def test_a_revoked_key_is_refused_by_every_worker_within_a_second(service: Running) -> None:
    """On connections that are open already."""
    role = new_key(service)
    connections = [service.connect() for _ in range(8)]
    try:
        assert {service.ask("GET", "/model", role=role, connection=each)[0] for each in connections} == {200}
        service.project.credentials.revoke(role)
        assert {service.ask("GET", "/model", role=role, connection=each)[0] for each in connections} == {401}
    finally:
        for each in connections:
            each.close()


def test_of_one_code_sent_to_all_workers_at_once_one_is_taken(service: Running) -> None:
    secret = pyotp.parse_uri(service.project.totp)
    assert isinstance(secret, pyotp.TOTP)
    headers = {"X-TOTP": secret.now()}
    path, body = f"/quarantine/{'0' * 32}/release", {"passphrase": PASSPHRASE}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: service.ask("POST", path, body, role="operator", headers=headers), range(4)))
    assert sorted(status for status, _ in answers) == [403, 403, 403, 404], answers
    assert {answer["error"] for status, answer in answers if status == 403} == {"gave a code that was used before"}


def workers(service: Running) -> list[psutil.Process]:
    children = psutil.Process(service.process.pid).children()
    living = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in living if "multiprocessing.spawn" in " ".join(child.cmdline())]


def test_a_killed_worker_is_replaced_and_nothing_that_was_told_is_lost(service: Running) -> None:
    role = new_key(service)
    told = quarantined(service, role)
    before = {worker.pid for worker in workers(service)}
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while len(after := {worker.pid for worker in workers(service)} - {min(before)}) < 2 or not after - before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert service.ask("GET", "/health", role=None)[0] == 200
    listed = service.ask("GET", "/quarantine", role="operator")[1]["rows"]
    assert set(told) <= {row["id"] for row in listed}


def quarantined(service: Running, role: str) -> list[str]:
    status, answer = service.ask("POST", "/score", rows(service, 60), role=role)
    assert status == 200
    found = [each["quarantined"] for each in answer["answers"] if "quarantined" in each]
    assert found, "a fifth of clean rows is rejected"
    return found


def test_a_killed_service_goes_on_where_it_was(made: ServedProject, served: ServedProject, service: Running) -> None:
    """SIGKILL of `aisec serve`: workers and store end with it; limits, quarantine and ledger are what they were."""
    role = new_key(service)
    told = quarantined(service, role)
    assert Counter(is_served(service, role, {}) for _ in range(59)) == {200: 59}
    family = psutil.Process(service.process.pid).children(recursive=True)
    service.process.kill()
    service.process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    with running(served) as again:
        again.project.keys = service.project.keys
        assert Counter(is_served(again, role, {}) for _ in range(60)) == {200: 40, 429: 20}
        listed = again.ask("GET", "/quarantine", role="operator")[1]["rows"]
        assert set(told) <= {row["id"] for row in listed}
        again.process.send_signal(signal.SIGTERM)
        assert again.process.wait(60) == 0
    log = (served.root / "serve.log").read_text()
    assert "Traceback" not in log, log
    said = [(entry["who"], entry["action"]) for entry in served.entries()]
    assert {(role, "quarantine"), (role, "refuse"), ("nobody", "refuse")} <= set(said)
    refused = [entry["why"] for entry in served.entries() if entry["who"] == role and entry["action"] == "refuse"]
    assert sum(int(why.split(": ")[1].split()[0]) for why in refused) == 20
    assert verify(Ledger(served.root / FOLDER), read_verifying_key(served.public_key)).intact
