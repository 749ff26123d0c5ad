"""The executor that runs tasks on the nodes of a Ray cluster."""

import queue
import shutil
import signal
import threading
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from aisec_lab.workbench.repro.connection import connect, disconnect, parse
from aisec_lab.workbench.repro.executor import Ended, Task
from aisec_lab.workbench.repro.local import ShellExecutor
from aisec_lab.workbench.repro.members import ClusterMembers, LostError, Member
from aisec_lab.workbench.repro.node import Order, Outcome, packages
from aisec_lab.workbench.repro.parcel import Incoming, Parcel, add, bundles, pack, read, unpack
from aisec_lab.workbench.repro.remote import default_remote, push
from aisec_lab.workbench.repro.shared import SharedExecutor
from aisec_lab.workbench.repro.source import source_of

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc_data.hashfile.db import HashFileDB

HERE = "aisec code"  # is run on this machine: it takes seconds, and this machine remembers what its hashes stand for
CODE = ("code.json", "reach.json", ".dvc/tmp/aisec/parsed.json")  # which each stage may read beside its inputs
TRIES = 3  # nodes that may be lost under a task before it is thought to be the cause
PATIENCE = 60.0  # seconds without any node after which the run is given up
GRACE = 5.0  # seconds that stages have to end when the run is stopped


class ClusterExecutor:
    """Runs each task on some node; this process alone records what comes back.

    The inputs of a task travel by DVC's default remote where this project and the node's copy of it have one, else
    through Ray's object store; its outputs come back the same way. They are put in their place when all of them are
    here, with the content that the node says. A task whose node is lost begins again on another one.

    Args:
        repo: DVC's.
        address: of the cluster, as `connection.parse` reads it.

    Raises:
        ValueError: no cluster, no token or a wrong one, or no node that can take part.
    """

    def __init__(self, repo: "Repo", address: str) -> None:
        self.repo, self.root, self.address = repo, Path(repo.root_dir), address
        self.remote = default_remote(repo)
        self.place = Path(repo.dvc_dir) / "tmp" / "aisec" / "incoming"
        self.numbers = count()
        self.ended: queue.SimpleQueue[Ended | BaseException] = queue.SimpleQueue()
        self.running: dict[str, threading.Thread] = {}
        self.stopped = self.lost = False
        shutil.rmtree(self.place, ignore_errors=True)  # of a run that was killed
        self.here = SharedExecutor(ShellExecutor(self.root, 1))
        source = source_of(repo)
        connect(parse(address))
        try:
            self.members = ClusterMembers(source, packages(self.root))
        except BaseException:
            disconnect()
            raise
        self.slots = self.members.slots

    def start(self, task: Task) -> None:
        """Begin a task."""
        thread = self.running[task.addressing] = threading.Thread(target=self._serve, args=(task,), daemon=True)
        thread.start()

    def wait(self, seconds: float) -> list[Ended]:
        """The tasks that ended since the last call.

        Raises:
            ValueError: the cluster is lost, all nodes are, or one of them cannot do what it must.
        """
        self.slots = max(1, self.members.slots)  # where all are lost, a task waits for the next
        ended: list[Ended] = []
        try:
            item = self.ended.get(timeout=seconds)
            while True:
                if isinstance(item, ConnectionError):
                    self.lost = True
                    raise ValueError(f"the cluster at {self.address} is lost ({item}): what ended is recorded")
                if isinstance(item, BaseException):
                    raise item
                del self.running[item.addressing]
                ended.append(item)
                item = self.ended.get_nowait()
        except queue.Empty:
            pass
        if not ended and self.members.alone() > PATIENCE:
            raise ValueError(f"{self.members.nobody()}; what ended is recorded")
        return ended

    def stop(self) -> None:
        """End all that runs, and leave the cluster."""
        if self.stopped:
            return
        self.stopped = True
        self.here.stop()
        self.members.close(GRACE, reachable=not self.lost)
        for thread in self.running.values():
            thread.join(GRACE)
        disconnect()
        shutil.rmtree(self.place, ignore_errors=True)

    def _serve(self, task: Task) -> None:
        """In a thread of its own: have a task run."""
        try:
            code = self.here.run(task) if task.cmd == HERE else self._run_anywhere(task)
            self.ended.put(Ended(task.addressing, code))
        except BaseException as error:  # `wait` raises it
            self.ended.put(error)

    def _run_anywhere(self, task: Task) -> int:
        """Run a task on a node, and on another one if that is lost; its exit code."""
        lost: list[str] = []
        code, log = -int(signal.SIGKILL), b""
        while len(lost) < TRIES:
            member = self.members.acquire()
            try:
                code, log = self._run(task, member)
                break
            except LostError as error:
                self.members.drop(member)
                lost.append(f"{error}: {task.addressing} begins again\n")
            finally:
                self.members.release(member)
        task.log.write_bytes("".join(lost).encode() + log)
        return code

    def _run(self, task: Task, member: Member) -> tuple[int, bytes]:
        """Run a task on a node, and fetch its outputs; its exit code and what it printed."""
        deps = tuple(dict.fromkeys((*task.deps, *CODE)))
        parcel = pack(self.root, (*deps, *task.outs), self.repo.state)  # outputs: those that DVC has left there
        remote = self.remote if member.remote else None
        self._send(parcel, member, remote)
        order = Order(task.addressing, task.cmd, task.wdir, deps, task.outs, parcel)
        outcome: Outcome = member.call("run", order)
        if self.stopped:
            raise LostError("the run is over")
        # what a failed stage has left is for the person, not for the remote
        self._bring(task.outs, outcome.parcel, member, None if outcome.code else remote)
        return outcome.code, outcome.log

    def _send(self, parcel: Parcel, member: Member, remote: "HashFileDB | None") -> None:
        blobs = set(member.call("lacks", parcel))
        files = {path: blob for path, blob in parcel.files.items() if blob in blobs}
        if remote and files:
            push(remote, self.root, Parcel((), files))
            member.call("fetch", list(blobs))
        elif files:
            import ray

            number = member.call("receive")
            places = {blob.md5: self.root / path for path, blob in files.items()}
            for pieces in bundles(blobs):
                member.call("write", number, pieces, ray.put(read(places, pieces)))
            member.call("finish", number)

    def _bring(self, outs: tuple[str, ...], parcel: Parcel, member: Member, remote: "HashFileDB | None") -> None:
        from dvc_data.hashfile.db.local import LocalHashFileDB
        from dvc_objects.fs.local import localfs

        folder = self.place / str(next(self.numbers))
        store = LocalHashFileDB(localfs, str(folder / "blobs"), hash_name="md5")
        if remote and parcel.files:
            member.call("push", parcel)
            add(store, {blob.md5: remote.oid_to_path(blob.md5) for blob in parcel.blobs}, remote.fs)
        else:
            incoming = Incoming(folder / "pieces", store)
            for pieces in bundles(parcel.blobs):
                incoming.write(pieces, member.call("read", pieces))
            incoming.finish()
        unpack(parcel, folder / "files", store)
        for out in outs:
            _replace(folder / "files" / out, self.root / out)
        shutil.rmtree(folder)


def _replace(new: Path, old: Path) -> None:
    """Move a file or folder to another place, and remove what was there."""
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)
    if new.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        new.rename(old)
