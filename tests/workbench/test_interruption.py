"""A run that is ended before it is done."""

import os
import select
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.clone import Project
from tests.family import Family, until
from tests.reproducible import digests

pytestmark = [pytest.mark.xdist_group("small"), pytest.mark.slow]

TRAIN = "notebooks/small/dvc.yaml:train@standard-0"
LOCKS = ("dvc.lock", "notebooks/small/dvc.lock")
LOG = ".dvc/tmp/aisec/logs/small.train@standard-0.log"
LONG = 300.0  # seconds, on a busy machine
OWN_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have told them to ignore it
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""  # run the words that follow with the terminal on stdin as their own


@pytest.fixture
def long(small: Project, tmp_path: Path) -> Project:
    """The small pipeline, run, whose training would now take minutes."""
    project = small.copy(tmp_path / "project")
    project.aisec("compose", "data.train_size=null", "fit.epochs=400")
    return project


class Terminal:
    """A terminal with one command in it.

    Args:
        project: where the command runs.
        command: its words.
    """

    def __init__(self, project: Project, *command: str) -> None:
        self.end, theirs = os.openpty()
        words = [sys.executable, "-c", OWN_TERMINAL, *command]
        with os.fdopen(theirs, "w") as out:
            self.family = Family(project, words, out, stdin=theirs)
        self.shown = b""

    def until_it_trains(self, log: Path) -> None:
        """Look at what it shows, and wait until the log of a stage says that its model is being trained."""

        def trains() -> bool:
            while select.select([self.end], [], [], 0)[0]:  # else it would wait to be read
                self.shown += os.read(self.end, 1 << 16)
            assert self.family.head.poll() is None, self.shown.decode()
            return log.exists() and "fit: " in log.read_text()

        until(trains, LONG)


def recorded(project: Project) -> dict[str, object]:
    """Every stage of every lock."""
    return {f"{name}:{key}": entry for name in LOCKS for key, entry in stages_of(project.root / name).items()}


def stages_of(lock: Path) -> dict[str, object]:
    return dict(yaml.safe_load(lock.read_text())["stages"])


@pytest.mark.parametrize("how", ["ctrl-c", "closed"])
def test_a_run_that_is_ended_in_its_terminal_takes_all_along(how: str, long: Project, small: Project) -> None:
    """Ctrl-C, or a closed window: what ended before is recorded, the rest is not; the next run gives the same bytes."""
    (long.root / LOG).unlink()
    terminal = Terminal(long, "aisec", "repro", "--jobs", "2")
    terminal.until_it_trains(long.root / LOG)
    assert b"train@standard-0" in terminal.shown, "what runs is shown while it runs"
    if how == "ctrl-c":
        os.write(terminal.end, b"\x03")
    else:
        os.close(terminal.end)
    code = terminal.family.ended(30)
    assert code == 130 if how == "ctrl-c" else code != 0
    before, after = recorded(small), recorded(long)
    assert after["dvc.lock:code"] != before["dvc.lock:code"], "it ended, and is recorded"
    assert after["notebooks/small/dvc.lock:train@standard-0"] == before["notebooks/small/dvc.lock:train@standard-0"]
    assert not (long.root / "models/standard-0").exists()
    long.aisec("compose")
    long.run("aisec", "repro", "--jobs", "2")
    assert digests(long.root) == digests(small.root)


def test_a_killed_dvc_takes_its_kernel_along_and_the_run_can_be_finished(long: Project, small: Project) -> None:
    """SIGKILL in training leaves nothing half-written; the next run survives the terminal from which it was started."""
    long.run("dvc", "repro", "data")
    # The shell in which dvc runs its commands: sh stays between the two, bash is replaced by the command.
    log, train = long.root / ".dvc/tmp/killed.log", ("dvc", "repro", "--single-item", TRAIN)
    with log.open("w") as file:
        killed = Family(long, train, file, {"SHELL": "/bin/sh"})
        until(lambda: "fit: " in log.read_text(), LONG)
        assert any("ipykernel" in word for process in killed.members() for word in process.cmdline())
        killed.head.kill()
        killed.ended(60)
    assert not (long.root / "models/standard-0").exists()
    assert [path.name for path in (long.root / "results/small/train/standard-0").iterdir()] == ["train.failed.ipynb"]

    long.aisec("compose", "fit.epochs=40")
    long.aisec("code")
    log, again = long.root / ".dvc/tmp/finished.log", f"{' '.join(train)} & echo $!; read line"
    with log.open("w") as file:
        terminal = Family(long, ("bash", "-c", again), file, {"SHELL": "/bin/bash"}, stdin=subprocess.PIPE)
        until(lambda: "fit: " in log.read_text(), LONG)
        finishing = psutil.Process(int(log.read_text().split()[0]))
        terminal.head.stdin.close()
        terminal.head.wait(LONG)
        assert finishing.is_running(), "it goes on without its terminal"
        until(lambda: not terminal.members(), LONG)
    assert "Updating lock file" in log.read_text(), log.read_text()
    assert (long.root / "models/standard-0/model.safetensors").exists()
    assert "up to date" in long.run("dvc", "status", TRAIN)
