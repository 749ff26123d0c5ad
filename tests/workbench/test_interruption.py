"""A run that is killed."""

import subprocess
import time
from collections.abc import Callable

import psutil

from tests.clone import SMALL, Clone
from tests.reproducible import digests


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for it, and fail where it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def gone(process: psutil.Process) -> bool:
    """Ended, whether or not anybody has asked for its exit code."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_run_takes_its_kernel_along_and_can_be_finished(clone: Clone) -> None:
    """SIGKILL in training leaves nothing half-written; the next run, whose terminal is closed, gives the same bytes."""
    clone.run("aisec", "compose", *SMALL, "data.train_size=null", "fit.epochs=25")
    clone.run("dvc", "repro", "data")
    # The shell in which dvc runs its commands: sh stays between the two, bash is replaced by the command.
    behind_sh, behind_bash = (clone.environment | {"SHELL": shell} for shell in ("/bin/sh", "/bin/bash"))
    log = clone.root / "killed.log"
    with log.open("w") as file:
        dvc = subprocess.Popen(["dvc", "repro", "train"], cwd=clone.root, env=behind_sh, stdout=file, stderr=file)
        until(lambda: "fit: " in log.read_text(), 120)
        family = psutil.Process(dvc.pid).children(recursive=True)
        assert any("ipykernel" in word for process in family for word in process.cmdline())
        dvc.kill()
        dvc.wait()
    until(lambda: all(map(gone, family)), 60)
    assert not (clone.root / "models/standard-0").exists()
    assert [path.name for path in (clone.root / "results/train/standard-0").iterdir()] == ["train.failed.ipynb"]

    log = clone.root / "finished.log"
    again, pipe = f"dvc repro train > {log} 2>&1 & echo $!; read line", subprocess.PIPE
    with subprocess.Popen(["bash", "-c", again], cwd=clone.root, env=behind_bash, stdin=pipe, stdout=pipe) as terminal:
        assert terminal.stdout is not None
        finishing = psutil.Process(int(terminal.stdout.readline()))
        until(lambda: log.exists() and "fit: " in log.read_text(), 120)
    until(lambda: gone(finishing), 300)
    finished = digests(clone.root)
    assert {"models/standard-0/model.safetensors", "results/train/standard-0/train.html"} < finished.keys(), (
        log.read_text()
    )
    assert "up to date" in clone.run("dvc", "status", "train")
    clone.run("dvc", "repro", "--force", "--single-item", "train@standard-0")
    assert digests(clone.root) == finished
