"""A project whose model can be served, and a service that runs on loopback until the test ends."""

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from aisec_lab.data import Prepared, Splits, prepare
from aisec_lab.models import CNN, save_checkpoint
from aisec_lab.trust import (
    PUBLIC_KEY,
    Ledger,
    LedgerChange,
    Passphrase,
    content_sha256,
    generate_keys,
    read_signing_key,
)
from aisec_lab.workbench.project_ledger import FOLDER, SIGNING_KEY
from aisec_lab.workbench.service.certificates import CLIENT, SERVER, Authority
from aisec_lab.workbench.service.credentials import CREDENTIALS, CredentialFile
from benchmarks.clone import ROOT

MODEL, STATE = "models/cnn", Path(".aisec/service")
PASSPHRASE = "correct horse"
PATIENCE = 120  # seconds for a service to start on a busy machine; nothing waits that long on an idle one
LOOSE = {"patience": 10.0}  # seconds for the store, on a busy machine


@dataclass
class ServedProject:
    """A project with a vouched-for model and the keys of a client, an operator and a monitor.

    Args:
        root: of the project.
        keys: of "client", "operator" and "monitor".
        totp: address of the operator's second factor.
    """

    root: Path
    keys: dict[str, str] = field(default_factory=dict)
    totp: str = ""

    @classmethod
    def make(cls, root: Path) -> "ServedProject":
        """Make it in a folder that is not there yet."""
        project = cls(root)
        (root / "models").mkdir(parents=True)
        (root / "dvc.yaml").touch()
        shutil.copytree(ROOT / "configs/access", root / "configs/access")
        prepare("digits", root / "data")
        project.train(0)
        Ledger.create(root / FOLDER, root / SIGNING_KEY)
        project.accept("train")
        authority = Authority.make()
        authority.write(root / STATE / "ca.pem")
        authority.issue("aisec", SERVER, root / STATE / "server.pem", root / STATE / "server.key", hosts=("127.0.0.1",))
        authority.issue("client", CLIENT, root / STATE / "client.pem", root / STATE / "client.key")
        generate_keys(root / STATE / "quarantine", Passphrase(PASSPHRASE, n=2**10))
        for role in ("client", "operator", "monitor"):
            project.keys[role], totp = project.credentials.add(role, role, person=role == "operator")
            project.totp = totp or project.totp
        project.configure()
        return project

    def copy(self, root: Path) -> "ServedProject":
        """The same elsewhere."""
        shutil.copytree(self.root, root)
        return ServedProject(root, dict(self.keys), self.totp)

    @property
    def credentials(self) -> CredentialFile:
        """Who has a key."""
        return CredentialFile(self.root / STATE / CREDENTIALS)

    @property
    def settings(self) -> Path:
        """The file that `aisec serve` reads."""
        return self.root / "configs/service.yaml"

    @property
    def splits(self) -> Splits:
        """The data of the model."""
        return Prepared("digits")(self.root / "data")

    @property
    def inputs(self) -> Tensor:
        """Clean rows (N, 1, 8, 8)."""
        return self.splits.test.x

    def configure(self, **changed: Any) -> None:
        """Write settings: the defaults, a port of the system's choice, no guard, and what is given."""
        limits = LOOSE | changed.pop("limits", {})
        self.settings.write_text(yaml.safe_dump({"port": 0, "guard": None, "limits": limits} | changed))

    def train(self, seed: int) -> None:
        """Put another model there: weights as they are drawn."""
        data = self.splits.card
        architecture = CNN(width=4, hidden=16)
        model = architecture((1, 8, 8), 10, generator=torch.Generator().manual_seed(seed))
        save_checkpoint(self.root / MODEL, model.eval(), architecture, data)

    def accept(self, action: str = "accept") -> None:
        """Let the ledger vouch for what lies there."""
        change = LedgerChange("test", action, MODEL, "a test", after=content_sha256(self.root / MODEL))
        Ledger(self.root / FOLDER).append(change, read_signing_key(self.root / SIGNING_KEY))

    def entries(self) -> list[dict[str, Any]]:
        """What the ledger says."""
        return [json.loads(line) for line in Ledger(self.root / FOLDER).read().lines]

    @property
    def public_key(self) -> Path:
        """Of the ledger."""
        return self.root / FOLDER / PUBLIC_KEY


@dataclass
class Running:
    """A service that runs.

    Args:
        project: whose model it serves.
        process: of `aisec serve`.
        port: on 127.0.0.1.
    """

    project: ServedProject
    process: "subprocess.Popen[str]"
    port: int

    def connect(self, context: ssl.SSLContext | None = None) -> http.client.HTTPSConnection:
        """A connection to one of the workers."""
        state = self.project.root / STATE
        if context is None:
            context = ssl.create_default_context(cafile=str(state / "ca.pem"))
            context.load_cert_chain(state / "client.pem", state / "client.key")
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=60)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        role: str | None = "client",
        headers: Mapping[str, str] = {},  # never changed
        connection: http.client.HTTPSConnection | None = None,
    ) -> tuple[int, Any]:
        """Status and JSON of an answer, on a connection of its own unless one is given."""
        given = {"Content-Type": "application/json", **headers}
        if role:
            given["Authorization"] = f"Bearer {self.project.keys[role]}"
        with nullcontext(connection) if connection else closing(self.connect()) as asked:
            asked.request(method, path, None if body is None else json.dumps(body), given)
            response = asked.getresponse()
            return response.status, json.loads(response.read())


@contextmanager
def running(project: ServedProject) -> Iterator[Running]:
    """Start `aisec serve`, and stop it whatever happens."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    with (project.root / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aisec_lab", "serve", MODEL],
            cwd=project.root, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith(MODEL), (said, (project.root / "serve.log").read_text())
        service = Running(project, process, int(said.rsplit(":", 1)[1]))
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if service.ask("GET", "/health", role=None)[0] == 200:
                    break
            except ConnectionError:  # no worker listens yet
                assert process.poll() is None, (project.root / "serve.log").read_text()
                assert time.monotonic() < deadline, (project.root / "serve.log").read_text()
                time.sleep(0.1)
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
