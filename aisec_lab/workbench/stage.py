"""What a command does differently inside a DVC stage."""

import json
import os
import signal
import threading
import time

import psutil

from aisec_lab.workbench.configure import TRACKED, project_root


def die_with_dvc() -> None:
    """Inside a DVC stage: do not outlive `dvc`, nor let a kernel do so; SIGKILL tells nobody. By hand: nothing."""
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=_watch, args=(_line(),), daemon=True).start()


def enter_stage() -> None:
    """Inside a DVC stage: cut the configuration to what it tracks. By hand: nothing."""
    if "DVC_STAGE" in os.environ:
        os.environ[TRACKED] = json.dumps(tracked_parameters(os.environ["DVC_STAGE"]))


def tracked_parameters(stage_name: str) -> list[str]:
    """The parameters that a stage tracks, such as `["attacks.pgd", "data"]`; DVC is asked, nothing is parsed."""
    from dvc.repo import Repo  # half a second that a run by hand need not pay

    stage = Repo(str(project_root())).stage.load_one(name=stage_name.split(":")[-1])
    return sorted(name for dependency in stage.params for name in dependency.params)


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
