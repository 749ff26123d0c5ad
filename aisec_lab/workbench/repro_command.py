"""The command `aisec repro`."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dvc.repo import Repo

    from aisec_lab.workbench.repro.executor import Executor


@click.command()
@click.argument("targets", nargs=-1)
@click.option("-j", "--jobs", type=click.IntRange(1), help="Stages that run at once (default: the processors).")
@click.option("-f", "--force", is_flag=True, help="Run also what is up to date.")
@click.option("-k", "--keep-going", is_flag=True, help="Where a stage fails, skip what needs it and do the rest.")
@click.option("--dry", is_flag=True, help="Only say what is stale, and why.")
@click.option("--cluster", metavar="ADDRESS", help="Run on the Ray cluster at ADDRESS.")
def repro(
    targets: tuple[str, ...], jobs: int | None, force: bool, keep_going: bool, dry: bool, cluster: str | None
) -> None:
    """Reproduce TARGETS as `dvc repro` does, several stages at a time.

    A target is what `dvc repro` takes, a study (`robustness`), or a stage of one (`robustness.train@trades-0`). Without
    any: the project's dvc.yaml and all that it needs.
    """
    from dvc.exceptions import DvcException, ReproductionError
    from dvc.repo import Repo, lock_repo

    from aisec_lab.workbench.repro.progress import progress

    for name, level in {"dvc": logging.WARNING, "dvc.progress": logging.CRITICAL}.items():
        logging.getLogger(name).setLevel(level)  # its messages and progress bars would mix with ours
    here, watcher, code = Path.cwd(), progress(), 0
    try:
        root = Path(Repo.find_root())
        os.chdir(root)  # DVC names a stage as seen from the working directory
        with Repo() as repo, lock_repo(repo):
            if dry:
                from aisec_lab.workbench.repro.dry import stale

                for line in stale(repo, targets, here, force=force):
                    click.echo(line)
                return
            from aisec_lab.workbench.keys import outdated
            from aisec_lab.workbench.repro.coordinator import Coordinator
            from aisec_lab.workbench.stages import declared

            executor, forced = _executor(repo, jobs, cluster, force), outdated(root, declared(repo))
            run = Coordinator(repo, targets, here, executor, watcher, force=force, forced=forced, keep_going=keep_going)
            with watcher:
                run.run()
    except ReproductionError:
        code = 1
    except KeyboardInterrupt:
        code = 130
    except DvcException as error:
        raise ValueError(str(error)) from error
    for line in watcher.summary(interrupted=code == 130):
        click.echo(line)
    sys.exit(code)


def _executor(repo: "Repo", jobs: int | None, cluster: str | None, force: bool) -> "Executor":
    if cluster and jobs:
        raise ValueError("--jobs is for this machine alone: a node says how many stages it runs (`aisec node --slots`)")
    if cluster:
        from aisec_lab.workbench.repro.cluster import ClusterExecutor

        return ClusterExecutor(repo, cluster)
    from aisec_lab.workbench.repro.coordinator import logs_of
    from aisec_lab.workbench.repro.local import local_executor

    logs = logs_of(repo) if force else None  # it is certain that something will run
    return local_executor(Path(repo.root_dir), jobs or len(os.sched_getaffinity(0)), logs)
