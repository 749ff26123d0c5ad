"""What a command does differently inside a DVC stage."""

import os
import signal
import threading
import time

import psutil


def die_with_dvc() -> None:
    """Inside a DVC stage: do not outlive `dvc`, nor let a kernel do so; SIGKILL tells nobody. By hand: nothing."""
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=_watch, args=(_line(),), daemon=True).start()


def _line() -> list[int]:
    """The process that `dvc` is, after the shell in which it may have started this one; not who started `dvc`."""
    parents = psutil.Process().parents()
    shell = os.path.basename(os.environ.get("SHELL") or "/bin/sh")  # the one that dvc takes; some replace themselves
    return [parent.pid for parent in parents[: 1 + (parents[0].name() in (shell, "sh"))]]


def _watch(line: list[int]) -> None:
    """Kill this process and its kernel once the line is broken: whoever loses a parent is given to another."""
    while [parent.pid for parent in psutil.Process().parents()][: len(line)] == line:
        time.sleep(0.5)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
