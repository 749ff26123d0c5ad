"""`aisec serve`: checks everything, then keeps workers, store and records alive until it is told to stop."""

import ctypes
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess

from aisec_lab.trust import Ledger, PublicKey, read_signing_key
from aisec_lab.workbench.project_ledger import FOLDER, SIGNING_KEY
from aisec_lab.workbench.service.credentials import CREDENTIALS, CredentialFile
from aisec_lab.workbench.service.database import DATABASE, Database
from aisec_lab.workbench.service.http_protocol import BoundedHttpProtocol
from aisec_lab.workbench.service.journal import Bookkeeper, Every
from aisec_lab.workbench.service.metrics import prepare_metrics
from aisec_lab.workbench.service.settings import EMBEDDED, ServiceSettings
from aisec_lab.workbench.service.store import EmbeddedStore
from aisec_lab.workbench.service.tls import TLSContext

LOG = logging.getLogger("uvicorn.error")
PR_SET_PDEATHSIG = 1
DRAIN = 10  # seconds for the answers that are under way when the service stops


@dataclass(frozen=True)
class WorkerApp:
    """Makes the application in a worker; it can be pickled, and brings its settings along.

    Args:
        name: of the model's folder.
        settings: of the service.
        root: of the project.
        store: URL of the store of the limits.
        parent: process id of `aisec serve`, with which the worker ends.
    """

    name: str
    settings: ServiceSettings
    root: Path
    store: str
    parent: int

    def __call__(self) -> Any:
        """The application."""
        import torch

        from aisec_lab.workbench.service.app import build_app
        from aisec_lab.workbench.service.worker import Worker

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self.parent:  # it died before that
            sys.exit(1)
        torch.set_num_threads(1)  # a core for each worker
        return build_app(Worker(self.name, self.settings, self.root, self.store))


@dataclass(frozen=True)
class WorkerServer:
    """Runs a worker on a socket of its own, bound to the service's port: the kernel shares connections out evenly.

    On one socket for all, a worker that wakes up first takes every connection that waits, and keeps it.

    Args:
        config: of Uvicorn.
        address: host and port.
    """

    config: uvicorn.Config
    address: tuple[str, int]

    def __call__(self, sockets: object = None) -> None:
        """Serve until SIGTERM; the argument is Uvicorn's and not used."""
        with _socket(self.address) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(self.address)
            uvicorn.Server(self.config).run(sockets=[listening])


def serve(name: str, settings: ServiceSettings, root: Path) -> None:
    """Serve a model until SIGTERM or Ctrl-C.

    Args:
        name: of its folder, such as `models/cnn`.
        settings: of the service.
        root: of the project, in which we stand.

    Raises:
        FileNotFoundError: a file that is missing.
        ValueError: something that is wrong with keys, certificates, model, guard, store or port; nothing was started.
    """
    state = root / settings.state
    _check_keys(settings, root)
    with ExitStack() as stack:
        listening = stack.enter_context(_bound(settings))
        stack.enter_context(_alone(state))
        database = Database(state / DATABASE)
        database.create()
        prepare_metrics(state / "metrics")
        _check_model(name, settings, root)
        bookkeeper = Bookkeeper(database, Ledger(root / FOLDER), read_signing_key(root / SIGNING_KEY))
        url = settings.limits.store
        if url == EMBEDDED:
            store = EmbeddedStore(state / "store")
            stack.callback(store.stop)
            store.start()
            url = store.url
            stack.callback(_running(0.2, store.start, "store").stop)
        stack.callback(bookkeeper.finish)
        stack.callback(_running(0.5, bookkeeper.write, "ledger").stop)
        config = uvicorn.Config(
            WorkerApp(name, settings, root, url, os.getpid()),
            factory=True,
            workers=settings.workers,
            ssl_context_factory=TLSContext(settings.tls),
            http=BoundedHttpProtocol,
            access_log=False,
            log_level="error",  # a warning for each malformed request would let anybody fill the disk
            server_header=False,
            date_header=False,
            limit_concurrency=1024,
            timeout_graceful_shutdown=DRAIN,
            timeout_worker_healthcheck=30,
            ws="none",
        )
        host, port = listening.getsockname()[:2]
        print(f"{name} on https://{host}:{port}", flush=True)
        Multiprocess(config, target=WorkerServer(config, (host, port)), sockets=[]).run()


def _check_keys(settings: ServiceSettings, root: Path) -> None:
    """Refuse, with a ValueError or FileNotFoundError, to start without keys for the work."""
    TLSContext(settings.tls)()
    known = CredentialFile(root / settings.state / CREDENTIALS).read()
    if all(one.revoked for one in known.values()):
        raise ValueError(
            "nobody has a valid key, so nobody could ask: `aisec service key NAME --role client` makes one"
        )
    public = root / settings.quarantine.public_key
    if not public.exists():
        raise FileNotFoundError(
            f"no {public}, which seals the quarantine: `aisec vault keygen {public.with_suffix('')}`"
        )
    PublicKey.read(public)
    read_signing_key(root / SIGNING_KEY)


def _check_model(name: str, settings: ServiceSettings, root: Path) -> None:
    """Refuse to start with a model or guard that no worker could load: load them here once."""
    from aisec_lab.workbench.service.guarding import build_guard
    from aisec_lab.workbench.service.served import load_served

    build_guard(settings.guard, load_served(name, root, settings.ledger_key), root)


def _bound(settings: ServiceSettings) -> socket.socket:
    """A socket that holds the port for the workers, and on which nobody listens."""
    listening = _socket((settings.host, settings.port))
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise ValueError(f"nothing can listen on {settings.host}:{settings.port}: {error.strerror}") from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # only now: else it would bind to a port in use
    return listening


def _socket(address: tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """No other service uses the same state meanwhile."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state / "service.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another service runs with the state in {state}: stop it first") from None
        yield


def _running(seconds: float, call: Any, what: str) -> Every:
    thread = Every(seconds, call, lambda error: LOG.error("%s: %s", what, error))
    thread.start()
    return thread
