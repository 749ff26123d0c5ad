"""The interface between the coordinator, which decides and records, and the executors, which run commands of stages."""

from pathlib import Path
from typing import NamedTuple, Protocol


class Task(NamedTuple):
    """The command of a stage, and what it reads and leaves.

    Args:
        addressing: DVC's name of the stage, such as `notebooks/robustness/dvc.yaml:train@trades-0`.
        cmd: the command as DVC would pass it to the shell; of several lines each is a command, run one after another.
        wdir: where it runs, relative to the project's root, usually `.`.
        deps: paths from the root that it reads, files or folders.
        outs: paths from the root that it must leave.
        log: file for its stdout and stderr together.
    """

    addressing: str
    cmd: str
    wdir: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    log: Path


class Ended(NamedTuple):
    """A task that is over.

    Args:
        addressing: its task's.
        code: exit code; negative: killed by that signal.
        seconds: how long its commands took, where that is less than from start to end; None: all of that time.
    """

    addressing: str
    code: int
    seconds: float | None = None


class Executor(Protocol):
    """Runs the commands of stages."""

    slots: int  # how many tasks may run at once

    def start(self, task: Task) -> None:
        """Begin a task; at most `slots` run at once."""

    def wait(self, seconds: float) -> list[Ended]:
        """The tasks that ended since the last call: at least one, unless the time is over."""

    def stop(self) -> None:
        """End all tasks and every process that was started for them; may be called twice."""


def stage_environment(root: Path, task: Task) -> dict[str, str]:
    """The environment that DVC gives to the command of a stage."""
    from dvc.env import DVC_ROOT, DVC_STAGE
    from dvc.utils import fix_env

    return {DVC_ROOT: str(root)} | fix_env(None) | {DVC_STAGE: task.addressing}
