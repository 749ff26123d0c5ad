"""Kill the small pipeline at random moments, and see that nothing of it is half-written, left running, or lost.

`python -m tests.kills 200` prints a line for each kill, in turn of the coordinator, the fork server, a runner and a
kernel, and ends at the first that does not hold. With `--cluster` the pipeline runs on two Ray nodes of this machine,
and the coordinator and a node are killed in turn.
"""

import argparse
import hashlib
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

from tests.clone import Project
from tests.family import Family
from tests.nodes import Cluster
from tests.nodes import run as run_there
from tests.reproducible import differing, digests
from tests.small import small_project

ROLES = ("coordinator", "server", "runner", "kernel")  # each is a child of the one before
RUN = ("aisec", "repro", "--jobs", "2")
TRANSIENT = (".part", ".failed.ipynb")  # what a file is called while it is written, and where an execution stopped
LONG = 300.0  # seconds, on a busy machine


class Finished(NamedTuple):
    """The pipeline as it must be in the end.

    Args:
        digests: of all outputs and locks.
        locks: what each lock says, from the place of the file.
        seconds: that a run of all stages takes.
    """

    digests: Mapping[str, str]
    locks: Mapping[str, Mapping[str, object]]
    seconds: float


def finished(project: Project) -> Finished:
    """Run what has not been run, undisturbed, and note what it gives."""
    began = time.monotonic()
    project.run(*RUN)
    return Finished(digests(project.root), locks_of(project), time.monotonic() - began)


def locks_of(project: Project) -> dict[str, dict[str, object]]:
    """The recorded stages of each lock; ValueError or a YAML error where one is half-written."""
    paths = sorted({*project.root.glob("dvc.lock"), *project.root.glob("notebooks/*/dvc.lock")})
    return {str(path.relative_to(project.root)): yaml.safe_load(path.read_text())["stages"] for path in paths}


def kill_one(project: Project, role: str, moment: float, expected: Finished, *, forget: bool) -> str:
    """Force a run, kill one of its processes, look at what is left, and let the next run finish.

    Args:
        project: the small pipeline, run.
        role: one of ROLES.
        moment: seconds after the start; where there is no such process then, the next one is killed.
        expected: what must be there in the end.
        forget: throw DVC's memory of runs away first, so that the next run has to compute what is missing.

    Returns:
        What was killed, in a line; nobody, where the run was over before.

    Raises:
        AssertionError: something is half-written, left behind, or not the same in the end.
    """
    with (project.root / ".dvc/tmp/killed.log").open("w") as log:
        run = Family(project, (*RUN, "--force"), log)
        time.sleep(moment)  # no race to cover: this is the moment
        killed = kill(run, role)
        code = run.ended(LONG)
    assert role != "coordinator" or killed is None or code == -signal.SIGKILL
    check_nothing_is_half_written(project, expected)
    if forget:
        shutil.rmtree(project.root / ".dvc/cache/runs", ignore_errors=True)
    project.run(*RUN)
    lost = differing(dict(expected.digests), digests(project.root))
    assert not lost, f"not the same after a kill of {killed}: {lost}"
    return f"{role:12} after {moment:5.1f} s: {killed or 'the run was over'}, exit code {code}"


def kill(run: Family, role: str) -> str | None:
    """SIGKILL a process of this role as soon as there is one; which, or nothing where the run ends before."""
    while run.head.poll() is None:
        there = [process for process in run.members() if run.depth(process) == ROLES.index(role)]
        for process in there:
            try:
                what = f"{process.pid} {process.name()}"
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
            return what
        time.sleep(0.005)
    return None


def check_nothing_is_half_written(project: Project, expected: Finished) -> None:
    """Each file is whole or bears the name of one that is not, each lock says only what is so, the cache holds."""
    for name, found in digests(project.root).items():
        lock = name.endswith(".lock")
        assert lock or name.endswith(TRANSIENT) or found == expected.digests.get(name), f"{name} is half-written"
    for path, stages in locks_of(project).items():
        for stage, entry in stages.items():
            assert entry == expected.locks[path][stage], f"{path} says of {stage} what is not so"
    for file in (project.root / ".dvc/cache/files/md5").glob("??/*"):
        if len(file.name.removesuffix(".dir")) == 30:  # others are being written
            md5 = hashlib.md5(file.read_bytes()).hexdigest()
            assert file.parent.name + file.name.removesuffix(".dir") == md5, f"the cache holds half of {file.name}"


def kill_on_cluster(project: Project, cluster: Cluster, role: str, moment: float, expected: Finished) -> str:
    """Force a run on the cluster, kill its coordinator or its second node, and see what is left, as `kill_one` does.

    A node's end is no failure: its stages run elsewhere. The node begins again afterwards.
    """
    words = ("aisec", "repro", "--cluster", cluster.address)
    cluster.begin_other()
    with (project.root / ".dvc/tmp/killed.log").open("w") as log:
        run = Family(project, (*words, "--force"), log, cluster.environment)
        time.sleep(moment)  # no race to cover: this is the moment
        if role == "node":
            cluster.ended("other")
        else:
            run.head.kill()
        code = run.ended(LONG)
    assert code in ((0,) if role == "node" else (0, -signal.SIGKILL)), Path(log.name).read_text()
    check_nothing_is_half_written(project, expected)
    run_there(project, *words, **cluster.environment)
    lost = differing(dict(expected.digests), digests(project.root))
    assert not lost, f"not the same after a kill of a {role}: {lost}"
    return f"{role:12} after {moment:5.1f} s, exit code {code}"


def main() -> None:
    """Make the small pipeline in a folder of its own, and kill it as often as is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="how many kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--cluster", action="store_true", help="on two Ray nodes of this machine")
    chosen = parser.parse_args()
    moments = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name, ExitStack() as left_over:
        folder = Path(name)
        project = small_project(folder / "project")
        if chosen.cluster:
            cluster = Cluster(folder, project)
            left_over.callback(cluster.close)
        expected = finished(project)
        for number in range(chosen.count):
            moment = moments.uniform(0, expected.seconds)
            if chosen.cluster:
                line = kill_on_cluster(project, cluster, ("node", "coordinator")[number % 2], moment, expected)
            else:
                line = kill_one(project, ROLES[number % len(ROLES)], moment, expected, forget=number % 3 == 0)
            print(f"{number + 1:4} {line}", flush=True)
    print(f"{chosen.count} kills: nothing half-written, nothing left running, the same bytes in the end")


if __name__ == "__main__":
    main()
