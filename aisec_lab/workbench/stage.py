"""What a command does differently inside a DVC stage."""

import json
import os
import signal
import threading
import time

import psutil

from aisec_lab.workbench.configure import TRACKED, project_root


def enter_stage() -> None:
    """Inside a DVC stage: cut the configuration to what it tracks, and do not outlive `dvc`. By hand: nothing."""
    name = os.environ.get("DVC_STAGE")
    if name is None:
        return
    os.environ[TRACKED] = json.dumps(tracked_parameters(name))
    threading.Thread(target=_die_with_parents, daemon=True).start()


def tracked_parameters(stage_name: str) -> list[str]:
    """The parameters that a stage tracks, such as `["attacks.pgd", "data"]`; DVC is asked, nothing is parsed."""
    from dvc.repo import Repo  # half a second that a run by hand need not pay

    stage = Repo(str(project_root())).stage.load_one(name=stage_name.split(":")[-1])
    return sorted(name for dependency in stage.params for name in dependency.params)


def _die_with_parents() -> None:
    """Kill this process and its kernel once `dvc`, or the shell between, is gone: SIGKILL tells nobody."""
    parents = psutil.Process().parents()[:2]
    while all(parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE for parent in parents):
        time.sleep(0.5)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
