"""The one process that decides what is stale, starts it, and records it: `dvc repro`, several stages at a time."""

import heapq
import time
from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from aisec_lab.workbench.repro.durations import Durations, longest_paths, time_left
from aisec_lab.workbench.repro.events import Failure, Watcher
from aisec_lab.workbench.repro.executor import Ended, Executor, Task
from aisec_lab.workbench.repro.gitignore import Ignored
from aisec_lab.workbench.repro.interrupt import Interrupt
from aisec_lab.workbench.repro.lock import Journal, Lock
from aisec_lab.workbench.repro.record import Decision, prepare, record
from aisec_lab.workbench.repro.targets import plan
from aisec_lab.workbench.stages import key_of

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

PLACE = Path("tmp") / "aisec"  # under .dvc: what this machine remembers, not in git
TICK = 0.5  # seconds between two looks at the progress


class Coordinator:
    """One run.

    Args:
        repo: DVC's; the caller keeps it locked from before `run` until after it.
        targets, here: as `targets.find` takes them.
        executor: runs the commands.
        watcher: receives the events of the run.
        force: run all stages that are planned, also those up to date.
        forced: run these, as DVC addresses them, also if they are up to date.
        keep_going: where a stage fails, skip what needs it and do the rest.
    """

    def __init__(
        self,
        repo: "Repo",
        targets: Sequence[str],
        here: Path,
        executor: Executor,
        watcher: Watcher,
        *,
        force: bool = False,
        forced: Collection[str] = (),
        keep_going: bool = False,
    ) -> None:
        self.repo, self.executor, self.watcher = repo, executor, watcher
        self.force, self.forced, self.keep_going = force, forced, keep_going
        place, self.logs = Path(repo.dvc_dir) / PLACE, logs_of(repo)
        self.journal, self.durations = Journal(place / "locks.json"), Durations(place / "durations.json")
        self.locks: dict[str, Lock] = {}
        self.steps, self.graph = plan(repo, targets, here)
        self.ignored = Ignored(repo, self.steps, self.journal)
        seconds = {stage: self.durations.guess(stage.addressing) for stage in self.steps}
        self.paths = longest_paths(seconds, {stage: self.graph.predecessors(stage) for stage in self.steps})
        self.missing = {stage: self.graph.out_degree(stage) for stage in self.steps}  # inputs that are not there yet
        self.open = dict(seconds)  # stages that are not over, with the time they may take
        self.queue: list[tuple[float, int, Stage]] = []
        self.tickets = count()
        self.running: dict[str, tuple[Stage, Task, float]] = {}
        self.failures: list[Failure] = []

    def run(self) -> None:
        """Reproduce the targets.

        Raises:
            ReproductionError: stages failed; what ended well is recorded.
            KeyboardInterrupt: Ctrl-C; the stages that ran are ended, what ended before is recorded.
        """
        from dvc.exceptions import ReproductionError

        with Interrupt() as interrupt, self.repo.scm_context:
            try:
                self._loop(interrupt)
            finally:
                self.executor.stop()
            if self.failures:
                if self.keep_going:
                    self.journal.finish()
                names = ", ".join(failure.addressing for failure in self.failures)
                raise ReproductionError(f"failed to reproduce {names}")
            self.journal.finish()

    def _loop(self, interrupt: Interrupt) -> None:
        for stage in self.steps:
            if not self.missing[stage]:
                self._enqueue(stage)
        while True:
            while self.queue and len(self.running) < self.executor.slots and (self.keep_going or not self.failures):
                self._decide(heapq.heappop(self.queue)[-1])
                interrupt.check()
            if not self.running:
                return
            with interrupt.at_once():
                ended = self.executor.wait(TICK)
            for task in ended:
                self._end(task)
            self._tick()

    def _enqueue(self, stage: "Stage") -> None:
        heapq.heappush(self.queue, (-self.paths[stage], next(self.tickets), stage))

    def _decide(self, stage: "Stage") -> None:
        from dvc.exceptions import DvcException

        addressing = stage.addressing
        try:
            with self.ignored.in_order(stage):
                force = self.force or addressing in self.forced
                decision = prepare(stage, list(self.graph.successors(stage)), force=force)
            if decision is Decision.RESTORED:
                self._write(stage)
        except DvcException as error:
            return self._fail(stage, Failure(addressing, str(error), None))
        if decision is Decision.RUN:
            task = self._task(stage)
            self.executor.start(task)
            self.running[addressing] = stage, task, time.monotonic()
            self.watcher.started(addressing, self.durations.last(addressing))
            return self._tick()
        if decision is Decision.RESTORED:
            self.watcher.restored(addressing)
        else:
            self.watcher.unchanged(addressing)
        return self._done(stage)

    def _end(self, ended: Ended) -> None:
        from dvc.exceptions import DvcException

        addressing, code, seconds = ended
        stage, task, began = self.running.pop(addressing)
        seconds = time.monotonic() - began if seconds is None else seconds
        if code:
            how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
            return self._fail(stage, Failure(addressing, how, task.log))
        try:
            self.repo.scm._reset()  # it remembers what git ignores, and the command may have changed that
            with self.ignored.in_order(stage):
                record(stage)
            self._write(stage)
        except DvcException as error:
            return self._fail(stage, Failure(addressing, str(error), task.log))
        self.durations.note(addressing, seconds)
        self.watcher.ran(addressing, seconds)
        return self._done(stage)

    def _write(self, stage: "Stage") -> None:
        """What `stage.dump(update_pipeline=False)` does."""
        from dvc.stage import PipelineStage
        from dvc.stage.serialize import to_single_stage_lockfile
        from dvc.utils import relpath

        if not isinstance(stage, PipelineStage):
            return stage.dump(update_pipeline=False)
        path = Path(stage.path).with_suffix(".lock")
        if stage.path not in self.locks:
            order = [step.name for step in self.steps if step.path == stage.path]
            self.locks[stage.path] = Lock(path, order, self.journal)
        if self.locks[stage.path].record(stage.name, to_single_stage_lockfile(stage)):
            self.repo.scm_context.track_file(relpath(path))
        return None

    def _done(self, stage: "Stage") -> None:
        del self.open[stage]
        for dependent in self.graph.predecessors(stage):
            self.missing[dependent] -= 1
            if not self.missing[dependent]:
                self._enqueue(dependent)

    def _fail(self, stage: "Stage", failure: Failure) -> None:
        import networkx as nx

        self.failures.append(failure)
        self.watcher.failed(failure)
        self.open.pop(stage)
        for dependent in nx.ancestors(self.graph, stage):
            if self.open.pop(dependent, None) is not None and self.keep_going:
                self.watcher.skipped(dependent.addressing)

    def _tick(self) -> None:
        now, left = time.monotonic(), dict(self.open)
        for stage, _, began in self.running.values():
            left[stage] = max(0.0, left[stage] - (now - began))
        paths = (self.paths[stage] - self.open[stage] + seconds for stage, seconds in left.items())
        self.watcher.tick(time_left(paths, left.values(), self.executor.slots))

    def _task(self, stage: "Stage") -> Task:
        root = Path(self.repo.root_dir)
        lines = stage.cmd if isinstance(stage.cmd, list) else stage.cmd.splitlines()
        if any("\n" in line.strip() for line in lines):
            raise ValueError(f"{stage.addressing}: a command of a list has several lines: give each its own place")
        return Task(
            addressing=stage.addressing,
            cmd="\n".join(line.strip() for line in lines),
            wdir=str(Path(stage.wdir).relative_to(root)),
            deps=tuple(sorted({str(Path(dep.fs_path).relative_to(root)) for dep in stage.deps if _local(dep)})),
            outs=tuple(sorted(str(Path(out.fs_path).relative_to(root)) for out in stage.outs if _local(out))),
            log=self.logs / f"{key_of(stage.addressing)}.log",
        )


def logs_of(repo: "Repo") -> Path:
    """The folder of the logs of a project's stages; made if absent."""
    logs = Path(repo.dvc_dir) / PLACE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return logs


def _local(entry: object) -> bool:
    """Whether an input or output is in the project."""
    return bool(entry.protocol == "local" and entry.is_in_repo)  # type: ignore[attr-defined]
