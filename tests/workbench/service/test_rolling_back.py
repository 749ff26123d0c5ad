"""The way back to the last good version while requests come in, in a project with git and DVC."""

import asyncio
import json
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pyotp
import pytest
from click.testing import CliRunner
from dvc.repo import Repo

from aisec_lab.trust import content_sha256
from aisec_lab.workbench.command import main
from aisec_lab.workbench.service.app import build_app
from aisec_lab.workbench.service.database import DATABASE, Database
from aisec_lab.workbench.service.rolling_back import loaded_versions
from aisec_lab.workbench.service.settings import read_settings
from aisec_lab.workbench.service.store import EmbeddedStore
from aisec_lab.workbench.service.worker import Worker
from benchmarks.served_project import MODEL, STATE, ServedProject
from tests.clone import ROOT

STAGE = """
stages:
  train:
    cmd: mkdir -p models && cp -r trained models/cnn
    deps: [trained]
    outs: [models/cnn]
"""


def accept(project: ServedProject, seed: int) -> str:
    """Train another version with DVC, and let the ledger vouch for it; its digest."""
    project.train(seed)
    shutil.rmtree(project.root / "trained", ignore_errors=True)
    shutil.move(project.root / MODEL, project.root / "trained")
    Repo(".").reproduce()
    done = CliRunner().invoke(
        main, ["ledger", "append", "--what", "accept", "--object", MODEL, "--why", "a test"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return content_sha256(project.root / MODEL)


@pytest.fixture
def versions(project: ServedProject) -> tuple[ServedProject, list[str]]:
    """A project that serves its third version; the first was made without DVC, and cannot come back."""
    (project.root / "dvc.yaml").write_text(STAGE)
    (project.root / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    for command in ("init -q", "config user.name Ada", "config user.email ada@localhost"):
        subprocess.run(["git", *command.split()], check=True)
    Repo.init()
    return project, [accept(project, seed) for seed in (1, 2)]


def test_the_good_version_is_back_and_clients_notice_nothing(
    versions: tuple[ServedProject, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request of a good client is answered; after the answer to the person all by the good version; recorded."""
    project, (good, bad) = versions
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Database(project.root / STATE / DATABASE).create()
    store = EmbeddedStore(tmp_path / "store")
    secret = pyotp.parse_uri(project.totp)
    assert isinstance(secret, pyotp.TOTP)
    body = {"inputs": project.inputs[:4].tolist()}
    client_headers, person_headers = (
        {"Authorization": f"Bearer {project.keys[role]}"} for role in ("client", "operator")
    )

    async def incident() -> None:
        worker = Worker(MODEL, read_settings(project.settings), project.root, store.url)
        transport = httpx.ASGITransport(build_app(worker))
        async with worker.running(), httpx.AsyncClient(transport=transport, base_url="https://x", timeout=60) as client:

            async def digest() -> str:
                return (await client.get("/model", headers=client_headers)).json()["sha256"]

            assert await digest() == bad
            why = {"why": "a monitor rang"}
            before = (await client.post("/score", headers=client_headers, json=body)).json()
            headers = person_headers | {"X-TOTP": secret.at(int(time.time()))}
            rolling = asyncio.create_task(client.post("/rollback", headers=headers, json=why, timeout=120))
            statuses = []
            while not rolling.done():
                statuses.append((await client.post("/score", headers=client_headers, json=body)).status_code)
                await asyncio.sleep(0.05)
            answer = await rolling
            assert (answer.status_code, answer.json()) == (200, {"entry": 1, "sha256": good})
            assert set(statuses) == {200}
            assert await digest() == good == content_sha256(project.root / MODEL)
            assert set(loaded_versions(worker.database).values()) == {good}
            after = (await client.post("/score", headers=client_headers, json=body)).json()
            assert before != after

            headers = person_headers | {"X-TOTP": secret.at(int(time.time()) + 30)}
            again = await client.post("/rollback", headers=headers, json=why)
            assert again.status_code == 409, "the version without DVC is in the ledger and nowhere else"
            assert await digest() == good

    try:
        store.start()
        asyncio.run(incident())
    finally:
        store.stop()
    last = project.entries()[-1]
    assert (last["action"], last["before"], last["after"]) == ("rollback", bad, good)
    assert "a monitor rang (operator, through the service)" in last["why"]
    assert json.loads((project.root / MODEL / "card.json").read_text())["architecture"]


def test_it_may_go_back_before_it_starts(
    versions: tuple[ServedProject, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a role that may; then whatever keeps it from starting does so."""
    project, (good, bad) = versions
    monkeypatch.delenv("AISEC_ROLE", raising=False)
    project.configure(port=-1)

    def serve(*words: str) -> str:
        done = CliRunner().invoke(main, ["serve", MODEL, "--rollback", "an incident", *words], catch_exceptions=False)
        assert done.exit_code == 2
        return done.output

    assert "port is in" in serve()
    project.configure(limits={"patience": 10.0})
    (project.root / STATE / "credentials.json").unlink()
    assert "who are you?" in serve()
    assert "client may not rollback models/cnn" in serve("--role", "client")
    assert content_sha256(project.root / MODEL) == bad
    assert "nobody has a valid key" in serve("--role", "operator")
    assert content_sha256(project.root / MODEL) == good
    assert project.entries()[-1]["why"] == "an incident"
