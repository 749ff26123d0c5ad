"""The routes of one worker, without a network: who may what, what is answered, and that nothing makes it fail."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema
import pyotp
import pytest
import torch
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from aisec_lab.trust import Ledger, read_verifying_key, verify
from aisec_lab.workbench.project_ledger import FOLDER
from aisec_lab.workbench.service.app import build_app
from aisec_lab.workbench.service.bodies import read_body
from aisec_lab.workbench.service.database import DATABASE, Database
from aisec_lab.workbench.service.journal import Bookkeeper
from aisec_lab.workbench.service.settings import read_settings
from aisec_lab.workbench.service.store import EmbeddedStore
from aisec_lab.workbench.service.worker import Worker
from benchmarks.served_project import MODEL, PASSPHRASE, STATE, ServedProject

GUARD = {"fpr": 0.2, "budget": 1e9, "ranges": {"mahalanobis": [1.0, 1e6]}}
LARGEST = 20_000


@dataclass
class InProcess:
    """A worker in this process.

    Args:
        project: whose model it serves.
        worker: the parts.
        app: the routes.
        runner: of the event loop in which it lives.
        client: asks it.
    """

    project: ServedProject
    worker: Worker
    app: FastAPI
    runner: asyncio.Runner
    client: httpx.AsyncClient

    def ask(
        self, method: str, path: str, *, role: str | None = "client", code: str = "", **more: Any
    ) -> httpx.Response:
        """An answer; an error inside the application is raised here."""
        headers = {"X-TOTP": code} if code else {}
        if role:
            headers["Authorization"] = f"Bearer {self.project.keys.get(role, role)}"
        headers |= more.pop("headers", {})
        return self.runner.run(self.client.request(method, path, headers=headers, **more))

    def score(self, x: Tensor, **more: Any) -> httpx.Response:
        """What it says of rows."""
        return self.ask("POST", "/score", json={"inputs": x.tolist()}, **more)

    def code(self) -> str:
        """A code of the operator that was not used yet: the memory of used ones is cleared first."""
        with self.worker.database.transaction() as connection:
            connection.execute("DELETE FROM totp")
        secret = pyotp.parse_uri(self.project.totp)
        assert isinstance(secret, pyotp.TOTP)
        return secret.at(int(time.time()))

    def recorded(self) -> list[tuple[str, str, str]]:
        """Who, action and reason of the entries of the ledger, after what was counted is in it."""
        self.worker.journal.flush()
        Bookkeeper(self.worker.database, self.worker._ledger, self.worker._key).write(now=time.time() + 60)
        return [(entry["who"], entry["action"], entry["why"]) for entry in self.project.entries()]

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Rows (1, 1, 8, 8): one that the guard lets pass, one that it rejects."""
        guard = self.worker.scorer._guard
        assert guard is not None
        x = self.project.inputs
        rejected = guard.check(x, client="test").rejected
        return x[~rejected][:1], x[rejected][:1]


@pytest.fixture(scope="module")
def service(made: ServedProject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    project = made.copy(tmp_path_factory.mktemp("app") / "project")
    project.configure(guard=GUARD, requests={"bytes": LARGEST, "rows": 8, "seconds": 60})
    Database(project.root / STATE / DATABASE).create()
    store = EmbeddedStore(project.root / STATE / "store")
    try:
        store.start()
        worker = Worker(MODEL, read_settings(project.settings), project.root, store.url)
        app = build_app(worker)
        with asyncio.Runner() as runner:
            transport = httpx.ASGITransport(app)
            yield InProcess(project, worker, app, runner, httpx.AsyncClient(transport=transport, base_url="https://x"))
    finally:
        store.stop()


def test_an_answer_is_the_models(service: InProcess) -> None:
    """Class and probabilities, for one row and for several, in their order."""
    good, _ = service.rows
    served = service.worker.scorer.served
    assert served is not None
    expected = served.model(good).softmax(1)
    (answer,) = service.score(good).json()["answers"]
    assert answer["class"] == str(expected.argmax().item())
    assert torch.allclose(torch.tensor([answer["probabilities"]]), expected, atol=1e-6)


def test_each_row_has_its_own_verdict(service: InProcess) -> None:
    good, bad = service.rows
    response = service.score(torch.cat([good, bad, good]))
    first, second, third = response.json()["answers"]
    assert response.status_code == 200
    assert first == third
    assert set(first) == {"class", "probabilities"}
    assert set(second) == {"quarantined"}, "nor does it say why: that would help an attacker"


def test_the_documents_health_and_page_need_no_key(service: InProcess) -> None:
    for path in ("/health", "/openapi.json", "/"):
        assert service.ask("GET", path, role=None).status_code == 200
    assert "http:" not in service.ask("GET", "/", role=None).text.replace("https://x", "")
    assert "src=" not in service.ask("GET", "/", role=None).text


PATHS = [
    ("POST", "/score", {"client", "operator"}),
    ("GET", "/model", {"client", "operator"}),
    ("GET", "/metrics", {"operator", "monitor"}),
    ("GET", "/quarantine", {"operator"}),
    ("GET", f"/quarantine/{'0' * 32}", {"client", "operator"}),
    ("POST", f"/quarantine/{'0' * 32}/release", {"operator"}),
    ("GET", "/thresholds", {"operator"}),
    ("POST", "/thresholds", {"operator"}),
    ("POST", "/rollback", {"operator"}),
]


@pytest.mark.parametrize(("method", "path", "allowed"), PATHS, ids=lambda each: each if isinstance(each, str) else "")
def test_who_may_what(method: str, path: str, allowed: set[str], service: InProcess) -> None:
    """Without a key 401, with another role's 403, with the right one something else; people need a code besides."""
    for role in (None, "aisec_nonsense", "client", "operator", "monitor"):
        response = service.ask(method, path, role=role)
        if role in allowed and not path.endswith(("release", "rollback")) and (method, path) != ("POST", "/thresholds"):
            assert response.status_code in {200, 404, 415}
        else:
            assert response.status_code == (403 if role in service.project.keys else 401)
            assert set(response.json()) == {"error"}


def test_every_path_is_in_the_document_and_needs_what_it_says(service: InProcess) -> None:
    document = service.app.openapi()
    listed = {(verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs}
    assert listed == {(method, path.replace("0" * 32, "{identity}")) for method, path, _ in PATHS} | {
        ("GET", "/health")
    }
    for path, verbs in document["paths"].items():
        for verb in verbs.values():
            assert verb["security"] == ([] if path == "/health" else [{"key": []}])


def test_refusals_are_in_the_ledger(service: InProcess) -> None:
    """With the name of the credential, not with what a stranger wrote."""
    service.ask("GET", "/quarantine", headers={"X-Forwarded-For": "evil"})
    service.ask("GET", "/model", role="aisec_evil")
    recorded = service.recorded()
    assert any(who == "client" and "may not read quarantine" in why for who, _, why in recorded)
    assert any(who == "nobody" and "no valid key" in why for who, _, why in recorded)
    assert "evil" not in str(recorded)
    key = read_verifying_key(service.project.public_key)
    assert verify(Ledger(service.project.root / FOLDER), key).intact


def test_a_quarantined_row_is_released_by_a_person_and_answered(service: InProcess) -> None:
    """Not by a wrong passphrase; once; its client alone sees the answer; all of it is recorded."""
    _, bad = service.rows
    (told,) = service.score(bad).json()["answers"]
    path = f"/quarantine/{told['quarantined']}"
    assert service.ask("GET", path).json() == {"id": told["quarantined"], "state": "held", "answer": None}
    assert service.ask("GET", path, role="operator").status_code == 404
    listed = service.ask("GET", "/quarantine", role="operator").json()["rows"]
    assert listed[0]["id"] == told["quarantined"]
    assert "mahalanobis" in listed[0]["reason"]

    def release(passphrase: str) -> httpx.Response:
        body = {"passphrase": passphrase}
        return service.ask("POST", f"{path}/release", role="operator", code=service.code(), json=body)

    assert release("wrong passphrase").status_code == 403
    released = release(PASSPHRASE)
    assert released.status_code == 200
    served = service.worker.scorer.served
    assert served is not None
    assert released.json()["answer"]["class"] == str(served.model(bad).argmax().item())
    assert service.ask("GET", path).json() == released.json()
    assert release(PASSPHRASE).status_code == 409
    told_by_ledger = service.recorded()
    assert [who for who, action, why in told_by_ledger if action == "release" and told["quarantined"] in why] == [
        "operator"
    ]
    assert any(
        action == "quarantine" and why.startswith("rejected by mahalanobis") for _, action, why in told_by_ledger
    )


def test_a_code_opens_one_door_once(service: InProcess) -> None:
    code = service.code()
    path = f"/quarantine/{'0' * 32}/release"
    body = {"passphrase": PASSPHRASE}
    assert service.ask("POST", path, role="operator", code=code, json=body).status_code == 404
    again = service.ask("POST", "/rollback", role="operator", code=code, json={"why": "again"})
    assert (again.status_code, again.json()) == (403, {"error": "gave a code that was used before"})


def test_a_person_may_move_a_threshold_within_its_range(service: InProcess) -> None:
    """The next pass has it, the ledger says it, and what is out of range changes nothing."""
    _, bad = service.rows
    before = service.ask("GET", "/thresholds", role="operator").json()["thresholds"]["mahalanobis"]

    def change(threshold: object, name: str = "mahalanobis") -> httpx.Response:
        body = {"filter": name, "threshold": threshold, "why": "the traffic changed"}
        return service.ask("POST", "/thresholds", role="operator", code=service.code(), json=body)

    try:
        assert set(service.score(bad).json()["answers"][0]) == {"quarantined"}
        for threshold, name in ((0.5, "mahalanobis"), (2e6, "mahalanobis"), ("9", "mahalanobis"), (9, "schema")):
            assert change(threshold, name).status_code == 422
        assert service.ask("GET", "/thresholds", role="operator").json()["thresholds"] == {"mahalanobis": before}
        assert change(1e6).json() == {"filter": "mahalanobis", "before": before, "threshold": 1e6}
        assert "class" in service.score(bad).json()["answers"][0]
        assert (
            "operator",
            "threshold",
            f"mahalanobis from {before:g} to 1e+06: the traffic changed",
        ) in service.recorded()
    finally:
        assert change(before).status_code == 200
    assert set(service.score(bad).json()["answers"][0]) == {"quarantined"}


def test_there_is_no_way_back_from_the_first_version(service: InProcess) -> None:
    response = service.ask("POST", "/rollback", role="operator", code=service.code(), json={"why": "an incident"})
    assert response.status_code == 409
    assert "no other good version" in response.json()["error"]


def test_the_metrics_count(service: InProcess) -> None:
    def value(name: str) -> float:
        lines = service.ask("GET", "/metrics", role="monitor").text.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith(f"{name}{{") or line.split(" ")[0] == name
        )

    before = value("aisec_rows_total"), value("aisec_refusals_total")
    good, bad = service.rows
    service.score(torch.cat([good, bad]))
    service.score(good, role="aisec_nobody")
    assert (value("aisec_rows_total"), value("aisec_refusals_total")) == (before[0] + 2, before[1] + 1)
    assert value("aisec_quarantined_rows") == service.worker.quarantine.held() > 0


def test_a_body_has_limits_of_size_and_time(service: InProcess) -> None:
    assert service.ask("POST", "/score", content=b"x" * (LARGEST + 1)).status_code == 413

    async def dripping() -> Any:
        for _ in range(LARGEST):
            yield b"12"

    assert service.ask("POST", "/score", content=dripping()).status_code == 413  # it does not say its length
    compressed = service.ask("POST", "/score", content=b"x", headers={"Content-Encoding": "gzip"})
    assert compressed.status_code == 415

    async def never() -> httpx.Response:
        class Silent:
            headers: dict[str, str] = {}  # noqa: RUF012

            async def stream(self) -> Any:
                await asyncio.Event().wait()
                yield b""

        limits = read_settings(service.project.settings).requests
        object.__setattr__(limits, "seconds", 0.01)
        await read_body(Silent(), limits)  # type: ignore[arg-type]
        raise AssertionError

    with pytest.raises(Exception, match="did not arrive"):
        service.runner.run(never())


def test_a_lost_store_refuses_or_admits_as_configured(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    from aisec_lab.workbench.service.rate_limits import Admission

    async def lost(credential: str) -> Admission:
        return Admission.STORE_LOST

    good, _ = service.rows
    monkeypatch.setattr(service.worker.door.limiter, "admit", lost)
    refused = service.score(good)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    monkeypatch.setattr(service.worker.door, "admit_lost", True)
    assert service.score(good).status_code == 200
    assert {action for _, action, why in service.recorded() if "does not answer" in why} == {"refuse", "admit"}


def test_a_damaged_file_of_keys_lets_nobody_in(service: InProcess) -> None:
    """And when it is whole again, everybody as before."""
    path = service.project.credentials.path
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    try:
        assert service.ask("GET", "/model").status_code == 503
    finally:
        path.write_bytes(content)
    assert service.ask("GET", "/model").status_code == 200


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANY_JSON = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))


def like(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that have nearly the form that a schema asks for."""
    match schema:
        case {"type": "object", "properties": properties}:
            fields = {name: like(inner) for name, inner in properties.items()}
            made = st.fixed_dictionaries(fields) | st.fixed_dictionaries({}, optional=fields | {"more": LEAF})
        case {"type": "array", "items": items, **bounds}:
            low, high = bounds.get("minItems", 0), min(bounds.get("maxItems", 4), 8)
            made = st.lists(like(items), min_size=low, max_size=high) | st.lists(like(items), max_size=2)
        case {"type": "number", **bounds}:
            made = st.floats(bounds.get("minimum"), bounds.get("maximum"), width=32)
        case {"type": "string", **bounds}:
            made = st.text(min_size=bounds.get("minLength", 0), max_size=min(bounds.get("maxLength", 20), 20))
        case _:
            raise AssertionError(schema)
    return st.integers(0, 9).flatmap(lambda die: ANY_JSON if die == 0 else made)


@st.composite
def requests(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """A request to a path of the document, with something about it that need not be right."""
    path, verb = draw(st.sampled_from([(path, verb) for path, verbs in document["paths"].items() for verb in verbs]))
    about = document["paths"][path][verb]
    identity = draw(st.sampled_from(["0" * 32, "..%2f", "%00", "x" * 300]) | st.text("0123456789abcdef", max_size=33))
    content = about.get("requestBody", {}).get("content", {})
    kind = draw(st.sampled_from([*content, "text/plain", "application/x-pickle", "multipart/form-data", ""]))
    schema = content.get("application/json", {}).get("schema")
    body: Any = draw(st.binary(max_size=60))
    value = None
    if schema and kind == "application/json" and draw(st.integers(0, 3)):
        value = draw(like(schema))
        body = json.dumps(value, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    return {
        "method": draw(st.sampled_from([verb.upper()] * 6 + ["PUT", "DELETE", "HEAD", "BREW"])),
        "path": path.replace("{identity}", identity),
        "content": body,
        "headers": {"Content-Type": kind},
        "role": draw(st.sampled_from(["client", "operator", "monitor", None, "aisec_x"])),
        "code": draw(st.sampled_from(["good", "good", "", "000000", "12345", "abc", "1" * 400])),
        "value": value,
        "schema": schema,
    }


def test_malformed_requests_are_refused_and_never_break_it(service: InProcess) -> None:
    """300 of them, made from the document. What is in order by the document may be answered; the rest is 4xx."""
    document = service.app.openapi()
    seen = {"refused": 0}

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(requests(document))
    def fuzz(request: dict[str, Any]) -> None:
        code = service.code()  # it also forgets wrong ones, or the operator would soon have to wait
        asked = {name: each for name, each in request.items() if name not in ("value", "schema")}
        response = service.ask(**asked | {"code": code if request["code"] == "good" else request["code"]})
        text = response.text
        assert "Traceback" not in text
        if response.status_code == 200:
            reading = request["method"] in ("GET", "HEAD")
            assert reading or jsonschema.Draft202012Validator(request["schema"]).is_valid(request["value"]), request
        else:
            assert 400 <= response.status_code < 500, (request, text)
            assert request["method"] == "HEAD" or set(response.json()) & {"error", "detail"}
            seen["refused"] += 1

    fuzz()
    assert seen["refused"] > 200
