"""Kill a run at a random moment, and see that nothing is left of it and that the next run finishes with the same bytes.

`python -m tests.workbench.kills 200` does it 200 times, to the coordinator, the server, a runner and a kernel in turn.
"""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.workbench.small_pipeline import PRELOAD, Project, notebooks

KINDS = ("coordinator", "server", "runner", "kernel")
MARK = "AISEC_KILLED_RUN"  # in the environment of all that a run starts
PATIENCE = 120.0  # seconds, where something should happen and does not
COMMAND = ("aisec", "repro", "--force", "--jobs", "2", "dvc.yaml", "demo")


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for it, and fail where it does not come."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)


def family(mark: str) -> list[psutil.Process]:
    """All processes of a run, whoever their parents are."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def member(coordinator: psutil.Process, kind: str) -> psutil.Process | None:
    """One of a run's processes of a kind, if there is one now."""
    line = [coordinator]
    for generation in KINDS[1 : KINDS.index(kind) + 1]:
        children = [child for parent in line for child in _children(parent)]
        line = [child for child in children if generation != "server" or "fork_server" in " ".join(_words(child))]
    return random.choice(line) if line else None


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def start(project: Project, mark: str, *command: str) -> subprocess.Popen[bytes]:
    """Begin a run in the background; its output goes to a file beside the project."""
    with project.root.with_name(f"{mark}.log").open("wb") as log:
        environment = project.environment(AISEC_PRELOAD=PRELOAD) | {MARK: mark}
        return subprocess.Popen(command, cwd=project.root, env=environment, stdout=log, stderr=log)


def kill_once(project: Project, reference: dict[str, str], kind: str, seconds: float, mark: str) -> str:
    """Kill one process of a forced run after some time, then finish the run.

    Args:
        project: where all is up to date.
        reference: its files then.
        kind: one of KINDS.
        seconds: how long to wait once there is a process of that kind.
        mark: unlike that of any other run.

    Returns:
        What was killed, or that the run was over before.
    """
    run = start(project, mark, *COMMAND)
    coordinator = psutil.Process(run.pid)
    until(lambda: member(coordinator, kind) or run.poll() is not None, f"a {kind}")
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end or run.poll() is not None, "the moment")
    victim = member(coordinator, kind) if run.poll() is None else None
    if victim:
        victim.send_signal(signal.SIGKILL)
    until(lambda: run.poll() is not None, "the end of the coordinator")
    until(lambda: not family(mark), f"the end of {[(one.pid, _words(one)) for one in family(mark)]}")
    assert kind != "coordinator" or not victim or run.returncode == -signal.SIGKILL
    whole(project)
    project.run("aisec", "repro", "dvc.yaml", "demo", AISEC_PRELOAD=PRELOAD)
    now = project.files()
    differing = sorted(name for name in now.keys() | reference.keys() if now.get(name) != reference.get(name))
    assert not differing, f"after the end of a {kind}: {differing}"
    return f"{kind} {'killed' if victim else 'was gone'}, the run ended with {run.returncode}"


def whole(project: Project) -> None:
    """What dvc.lock says is there, of what it says; nothing else that a stage leaves has been recorded."""
    output = project.run("dvc", "status", "--json", "dvc.yaml", "notebooks/demo/dvc.yaml")
    assert "rows.txt" not in output


def main(count: int) -> None:
    """Kill so many runs."""
    random.seed(0)
    with TemporaryDirectory() as folder:
        project = notebooks(Path(folder) / "project", seconds=0.3)
        project.run("aisec", "repro", "dvc.yaml", "demo", AISEC_PRELOAD=PRELOAD)
        reference = project.files()
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            seconds = random.uniform(0, 8 if kind == "coordinator" else 4 if kind == "server" else 1)
            print(number, kill_once(project, reference, kind, seconds, f"{sys.argv[0]}-{number}"), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
