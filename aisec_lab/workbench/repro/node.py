"""What runs on a node of a cluster: stages, in a copy of the project that the coordinator sends, with their files."""

import platform
import re
import threading
from collections.abc import Sequence
from importlib.metadata import distributions
from itertools import count
from pathlib import Path
from typing import NamedTuple

from dvc.repo import Repo
from dvc_objects.fs.local import localfs

from aisec_lab.workbench.repro.executor import Task
from aisec_lab.workbench.repro.local import local_executor
from aisec_lab.workbench.repro.parcel import Blob, Incoming, Parcel, Piece, add, files_at, pack, read, unpack
from aisec_lab.workbench.repro.remote import default_remote, push
from aisec_lab.workbench.repro.shared import SharedExecutor

LOCK = "requirements.lock"


class Order(NamedTuple):
    """A task for a node.

    Args:
        addressing, cmd, wdir, deps, outs: as in `Task`.
        parcel: the files at its inputs, and those that are left of its outputs.
    """

    addressing: str
    cmd: str
    wdir: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    parcel: Parcel


class Outcome(NamedTuple):
    """A task that is over.

    Args:
        code: its exit code; negative: killed by that signal.
        log: its stdout and stderr.
        parcel: the files at its outputs.
    """

    code: int
    log: bytes
    parcel: Parcel


class Description(NamedTuple):
    """A node, as far as the coordinator must know it.

    Args:
        packages: as `packages` gives them.
        remote: whether its own copy of the project has a default DVC remote.
    """

    packages: dict[str, str]
    remote: bool


class Node:
    """Runs the tasks of one run of one coordinator; its methods may be called from several threads.

    Args:
        root: the copy of the coordinator's source, with nothing else in it.
        project: this node's own copy of the project, whose DVC cache and remote are used.
        slots: how many tasks run at once.
    """

    def __init__(self, root: Path, project: Path, slots: int) -> None:
        self.root = root
        self.repo = Repo(str(project))
        self.store = self.repo.cache.local
        self.log_folder = root.with_name("logs")
        self.log_folder.mkdir(exist_ok=True)
        self.incoming: dict[int, Incoming] = {}
        self.numbers = count()
        self.here = pack(root, ["."]).files  # the files in `root`
        self.changing = threading.Lock()  # guards the files in `root`
        self.executor = SharedExecutor(local_executor(root, slots))
        local = f"[core]\n    no_scm = true\n[cache]\n    dir = {Path(self.store.path).parents[1]}\n"
        (root / ".dvc" / "config.local").write_text(local)  # the copy is no git repository

    def describe(self) -> Description:
        """What the coordinator must know of this node."""
        return Description(packages(self.root), default_remote(self.repo) is not None)

    def lacks(self, parcel: Parcel) -> list[Blob]:
        """The blobs of a parcel that are not here."""
        wanted = dict.fromkeys(blob for path, blob in parcel.files.items() if self.here.get(path) != blob)
        return [blob for blob in wanted if not self.store.exists(blob.md5)]

    def receive(self) -> int:
        """Be ready for blobs that come in pieces; the number of this transfer."""
        number = next(self.numbers)
        self.incoming[number] = Incoming(self.root.with_name("incoming") / str(number), self.store)
        return number

    def write(self, number: int, pieces: Sequence[Piece], parts: Sequence[bytes]) -> None:
        """Take the next pieces of a transfer."""
        self.incoming[number].write(pieces, parts)

    def finish(self, number: int) -> None:
        """Put the blobs of a transfer into the cache; its last piece has come.

        Raises:
            ValueError: a blob came with another content.
        """
        self.incoming.pop(number).finish()

    def fetch(self, blobs: Sequence[Blob]) -> None:
        """Take blobs from the DVC remote.

        Raises:
            ValueError: the remote of this node's copy does not have them.
        """
        remote = default_remote(self.repo)
        assert remote is not None
        try:
            add(self.store, {blob.md5: remote.oid_to_path(blob.md5) for blob in blobs}, remote.fs)
        except FileNotFoundError as error:
            raise ValueError(
                f"its DVC remote {remote.path} lacks what was pushed ({error}): have the same default remote in both "
                "copies of the project (`dvc remote list`)"
            ) from error

    def run(self, order: Order) -> Outcome:
        """Put the files of a task in their place, run it, and say what it left."""
        with self.changing:
            self._place(order.parcel, (*order.deps, *order.outs))
        for out in order.outs:
            (self.root / out).parent.mkdir(parents=True, exist_ok=True)
        log = self.log_folder / f"{order.addressing.replace('/', '.').replace(':', '.')}.log"
        code = self.executor.run(Task(order.addressing, order.cmd, order.wdir, order.deps, order.outs, log))
        left = pack(self.root, order.outs)
        if code == 0:  # for the tasks of later runs: these find it where it lies
            add(self.store, {blob.md5: str(self.root / path) for path, blob in left.files.items()}, localfs)
        with self.changing:
            self.here |= left.files
        return Outcome(code, log.read_bytes(), left)

    def read(self, pieces: Sequence[Piece]) -> list[bytes]:
        """The bytes of pieces of files on this node."""
        wanted = {piece.md5 for piece in pieces}
        with self.changing:
            files = {blob.md5: self.root / path for path, blob in self.here.items() if blob.md5 in wanted}
        return read(files, pieces)

    def push(self, parcel: Parcel) -> None:
        """Push files of this node to the DVC remote."""
        remote = default_remote(self.repo)
        assert remote is not None
        push(remote, self.root, parcel)

    def stop(self) -> None:
        """End all that runs."""
        self.executor.stop()

    def _place(self, parcel: Parcel, paths: Sequence[str]) -> None:
        """Have at the paths what a parcel says, and nothing else."""
        for path in files_at(self.root, paths)[1]:
            if path not in parcel.files:
                (self.root / path).unlink()
                self.here.pop(path, None)
        changed = {path: blob for path, blob in parcel.files.items() if self.here.get(path) != blob}
        unpack(parcel._replace(files=changed), self.root, self.store)
        self.here |= changed


def packages(root: Path) -> dict[str, str]:
    """The versions of what results depend on: Python, and each installed distribution that the lock file names.

    Args:
        root: of the project; without a lock file each installed distribution counts.
    """
    lock = root / LOCK
    pinned = set(re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)) if lock.exists() else None
    names = pinned and {_normal(name) for name in pinned}
    found = {_normal(one.name): one.version for one in distributions() if one.name}
    versions = {name: version for name, version in sorted(found.items()) if names is None or name in names}
    return {"python": platform.python_version(), **versions}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
