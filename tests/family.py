"""The processes that a command starts, found whoever has become their parent."""

import subprocess
import time
from collections.abc import Callable, Sequence
from typing import IO
from uuid import uuid4

import psutil

from tests.clone import Project

MARK = "AISEC_TEST_FAMILY"


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for it, and fail where it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Family:
    """A command that runs in a project, and its descendants: they inherit a mark in their environment.

    Args:
        project: where it runs.
        command: its words.
        out: where its stdout and stderr go.
        options: of `subprocess.Popen`, `env` not among them.
        env: variables beside those of the project.
    """

    def __init__(
        self,
        project: Project,
        command: Sequence[str],
        out: IO[str],
        env: dict[str, str] | None = None,
        **options: object,
    ) -> None:
        self.mark = uuid4().hex
        environment = project.environment | {MARK: self.mark} | (env or {})
        self.head = subprocess.Popen(  # type: ignore[call-overload]
            command, cwd=project.root, env=environment, stdout=out, stderr=out, **options
        )

    def members(self) -> list[psutil.Process]:
        """Those that live; one that has ended and is not yet reaped by its parent does not."""
        return [process for process in psutil.process_iter() if self._is_member(process)]

    def depth(self, process: psutil.Process) -> int:
        """How many steps it is below the command itself; -1 where it is not, or no longer."""
        try:
            line = [process.pid, *(parent.pid for parent in process.parents())]
        except psutil.NoSuchProcess:
            return -1
        return line.index(self.head.pid) if self.head.pid in line else -1

    def ended(self, seconds: float) -> int:
        """Wait for the command and for all that it started; its exit code. Fail where a process stays."""
        code = int(self.head.wait(seconds))
        until(lambda: not self.members(), seconds)
        return code

    def _is_member(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # ended meanwhile, or not ours
            return False
