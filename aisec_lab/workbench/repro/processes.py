"""Parents and children among the processes of a run: no child outlives its parent, and orphans are adopted.

Executors and nodes import this file as a module of the package; the warm process of `fork_server` loads it by its path.
"""

import ctypes
import os
import signal
from contextlib import suppress

import psutil

KERNEL = "aisec-lab"  # the only kernel that is forked: the warm process has made its imports
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
prctl = ctypes.CDLL(None, use_errno=True).prctl


def exit_with_parent(parent: int) -> None:
    """Have Linux kill this process when its parent, the process `parent`, dies; at once where it has died already."""
    if prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of the orphans of all descendants, instead of init."""
    if prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children() -> list[int]:
    """The processes whose parent this one is."""
    return [child.pid for child in psutil.Process().children()]


def interrupt(pid: int) -> None:
    """Send SIGINT to a child and all its descendants, the youngest first: a kernel before its runner."""
    runner = psutil.Process(pid)
    for process in [*reversed(runner.children(recursive=True)), runner]:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
