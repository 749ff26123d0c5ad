"""The executors of one machine: by forks from a warm process where Linux allows it, else each command in a shell."""

import json
import os
import queue
import re
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from aisec_lab.workbench.repro.executor import Ended, Executor, Task, stage_environment
from aisec_lab.workbench.repro.processes import adopt_orphans

SERVER = Path(__file__).with_name("fork_server.py")
WORD = r"""(?:[\w@%+=:,./-]|'[^']*'|"[^"$`\\!]*")++"""  # in which a shell would expand nothing
PLAIN = re.compile(rf"\s*{WORD}(?:\s+{WORD})*+\s*", re.ASCII)
STARTED: set[int] = set()  # children that live, each the leader of a session
LOG = "server.log"  # beside those of the tasks
GRACE = 2.0  # seconds that an interrupted stage has to end by itself


def local_executor(root: Path, slots: int, logs: Path | None = None) -> Executor:
    """The best executor of this machine.

    Args:
        root: the project's root.
        slots: how many tasks may run at once, at least 1.
        logs: the folder of the tasks' logs, where it is certain that there will be tasks: what they need is then
            prepared at once, while other work is done before the first of them.
    """
    if not (sys.platform == "linux" and hasattr(os, "pidfd_open")):
        return ShellExecutor(root, slots)
    executor = ForkingExecutor(root, slots)
    if logs:
        executor.start_server(logs / LOG)
    return executor


class ForkingExecutor:
    """Runs each task in a fork of a process that has imported everything, which starts with the first task or before.

    Where that process finds that it cannot be forked, a shell runs each task instead.
    """

    def __init__(self, root: Path, slots: int) -> None:
        self.root, self.slots = root, slots
        self.server: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.unread = b""
        self.running: dict[str, Task] = {}
        self.instead: ShellExecutor | None = None

    def start(self, task: Task) -> None:
        """Begin a task."""
        if self.instead:
            return self.instead.start(task)
        if self.server is None:
            self.start_server(task.log.with_name(LOG))
        request = {
            "start": task.addressing,
            "commands": [_command(line) for line in task.cmd.splitlines()],
            "env": stage_environment(self.root, task),
            "cwd": str(self.root / task.wdir),
            "log": str(task.log),
        }
        self.running[task.addressing] = task
        return self._send(request)

    def wait(self, seconds: float) -> list[Ended]:
        """The tasks that ended since the last call; where the server died, all of them did."""
        if self.instead:
            return self.instead.wait(seconds)
        if not self.running or not self._readable(seconds):
            return []
        try:
            received = self.channel.recv(1 << 16)
        except ConnectionResetError:
            received = b""
        if not received:
            return self._lost()
        *lines, self.unread = (self.unread + received).split(b"\n")
        messages = [json.loads(line) for line in lines]
        self.ready = self.ready or {"ready": True} in messages
        over = [message for message in messages if "ended" in message]
        ended = [Ended(message["ended"], message["code"], message["seconds"]) for message in over]
        for task in ended:
            del self.running[task.addressing]
        return ended

    def stop(self) -> None:
        """Interrupt the tasks that run, kill what is left of them soon after, and end the server."""
        if self.running:
            self.wait(0)
        if self.instead:
            return self.instead.stop()
        if self.running and self.ready:
            self._send({"stop": GRACE})
            end = time.monotonic() + 2 * GRACE
            while self.running and (left := end - time.monotonic()) > 0:
                self.wait(left)
        if self.server is not None and not self.ready:  # it still imports, and would look up only then
            self.server.kill()
            self._lost()
        elif self.server is not None:
            self.channel.close()  # upon which the server kills all that is left, and ends
            self.server.wait()
            self._forget()
        return None

    def start_server(self, log: Path) -> None:
        """Begin the process that imports everything; it prints into `log`."""
        adopt_orphans()  # of a server that is killed
        self.channel, theirs = socket.socketpair()
        words = [sys.executable, "-P", "-Xfrozen_modules=off", str(SERVER), str(theirs.fileno())]
        with log.open("wb") as file:
            self.server = subprocess.Popen(
                words,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the coordinator's
            )
        theirs.close()
        STARTED.add(self.server.pid)

    def _send(self, request: dict[str, Any]) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the server is dead: `wait` will say so
            self.channel.sendall(json.dumps(request).encode() + b"\n")

    def _readable(self, seconds: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def _lost(self) -> list[Ended]:
        """The server is dead: with it died what it had forked; what those had started is ours now, and is killed."""
        assert self.server is not None
        code, tasks, refused = self.server.wait(), list(self.running.values()), not self.ready
        self.channel.close()
        self._forget()
        kill_strays()
        if code > 0 and refused:  # it has said why in its log
            print(f"aisec: stages start without a warm process, see {tasks[0].log.with_name(LOG)}", file=sys.stderr)
            self.instead = ShellExecutor(self.root, self.slots)
            for task in tasks:
                self.instead.start(task)
            return []
        return [Ended(task.addressing, code or -signal.SIGKILL) for task in tasks]

    def _forget(self) -> None:
        STARTED.discard(self.server.pid if self.server else 0)
        self.server, self.ready, self.unread, self.running = None, False, b"", {}


class ShellExecutor:
    """Runs each task as `dvc repro` would: a shell for each command."""

    def __init__(self, root: Path, slots: int) -> None:
        self.root, self.slots = root, slots
        self.ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self.running: dict[str, subprocess.Popen[bytes] | None] = {}
        self.stopped = False

    def start(self, task: Task) -> None:
        """Begin a task."""
        self.running[task.addressing] = None
        threading.Thread(target=self._run, args=(task,)).start()

    def wait(self, seconds: float) -> list[Ended]:
        """The tasks that ended since the last call."""
        ended = []
        try:
            ended.append(self.ended.get(timeout=seconds))
            while True:
                ended.append(self.ended.get_nowait())
        except queue.Empty:
            return ended

    def stop(self) -> None:
        """Interrupt the tasks that run, and kill after some time what is left of them."""
        self.stopped = True
        for signum in (signal.SIGINT, signal.SIGKILL):
            for process in list(self.running.values()):
                if process and process.poll() is None:
                    os.killpg(process.pid, signum)
            end = time.monotonic() + GRACE
            while any(self.running.values()) and (left := end - time.monotonic()) > 0:
                self.wait(left)

    def _run(self, task: Task) -> None:
        code = 0
        with task.log.open("wb") as log:
            for line in task.cmd.splitlines():
                if code == 0 and not self.stopped:
                    process = subprocess.Popen(
                        shell_words(line),
                        cwd=self.root / task.wdir,
                        env=stage_environment(self.root, task),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                    STARTED.add(process.pid)
                    self.running[task.addressing] = process
                    code = process.wait()
                    STARTED.discard(process.pid)
        del self.running[task.addressing]
        self.ended.put(Ended(task.addressing, code))


def shell_words(line: str) -> list[str]:
    """The program and arguments by which DVC would run a line in the user's shell."""
    from dvc.stage.run import _make_cmd, get_executable

    return list(_make_cmd(get_executable(), line))


def kill_strays() -> None:
    """Kill the processes that dead children have left to this one: those of another session that it did not start."""
    own = os.getsid(0)
    while strays := {one.pid for one in psutil.Process().children() if os.getsid(one.pid) != own} - STARTED:
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _command(line: str) -> tuple[str, Sequence[str]]:
    """A line as the server takes it: `aisec` runs inside a fork, where nothing in the line is the shell's business."""
    words = shlex.split(line) if PLAIN.fullmatch(line) else []
    return ("aisec", words[1:]) if words[:1] == ["aisec"] and words[1:] else ("exec", shell_words(line))
