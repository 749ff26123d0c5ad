"""`aisec repro` decides, orders and records as `dvc repro` does, whatever ends first."""

import hashlib
import inspect
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import dvc
import pytest
from dvc.exceptions import ReproductionError
from dvc.repo import Repo, lock_repo

from aisec_lab.workbench.repro.coordinator import Coordinator
from aisec_lab.workbench.repro.dry import stale
from aisec_lab.workbench.repro.executor import Ended, Task
from aisec_lab.workbench.repro.progress import Lines
from aisec_lab.workbench.repro.targets import find
from tests.workbench.small_pipeline import Pipeline, shells

GRAPH = (  # names that no order but the plan's sorts
    ("zero", ""),
    ("nine", "zero"),
    ("beta", "zero"),
    ("join", "beta nine"),
    ("alone", ""),
    ("last", "join alone"),
    ("own", ""),
)


class Scripted:
    """An executor that ends tasks in an order that is given, and may be interrupted."""

    def __init__(self, root: Path, slots: int, order: Callable[[list[Task]], Task], interrupt_at: str = "") -> None:
        self.root, self.slots, self.order, self.interrupt_at = root, slots, order, interrupt_at
        self.tasks: list[Task] = []
        self.ran: list[str] = []
        self.most = 0

    def start(self, task: Task) -> None:
        """Begin a task."""
        self.tasks.append(task)
        self.most = max(self.most, len(self.tasks))

    def wait(self, seconds: float) -> list[Ended]:
        """Run the one whose turn it is."""
        task = self.order(self.tasks)
        self.tasks.remove(task)
        if task.addressing == self.interrupt_at:
            raise KeyboardInterrupt
        self.ran.append(task.addressing)
        code = subprocess.run(task.cmd, shell=True, cwd=self.root / task.wdir).returncode
        return [Ended(task.addressing, code)]

    def stop(self) -> None:
        """Nothing runs."""


ORDERS: dict[str, Callable[[list[Task]], Task]] = {
    "first in, first out": lambda tasks: tasks[0],
    "last in, first out": lambda tasks: tasks[-1],
    "at random": random.Random(0).choice,
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The graph above, before anything ran."""
    return shells(tmp_path_factory.mktemp("fresh") / "project", GRAPH)


@pytest.fixture(scope="module")
def finished(fresh: Pipeline) -> Pipeline:
    """What `dvc repro` makes of it, committed."""
    project = fresh.copy(fresh.root.with_name("finished"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        theirs(project, monkeypatch)
    return project


@pytest.fixture
def project(fresh: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The graph above; the working directory is its root."""
    monkeypatch.chdir(fresh.copy(tmp_path / "ours").root)
    return Pipeline(tmp_path / "ours")


@pytest.fixture
def done(finished: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The same where all is up to date and committed."""
    monkeypatch.chdir(finished.copy(tmp_path / "ours").root)
    project = Pipeline(tmp_path / "ours")
    project.commit("pipeline")
    return project


def twin(project: Pipeline) -> Pipeline:
    """A copy, in which `dvc repro` does what we do."""
    other = project.root.with_name("theirs")
    shutil.rmtree(other, ignore_errors=True)
    return project.copy(other)


def repro(
    project: Pipeline,
    order: str = "last in, first out",
    *,
    targets: Sequence[str] = (),
    slots: int = 3,
    interrupt_at: str = "",
    force: bool = False,
    keep_going: bool = False,
) -> tuple[Scripted, Lines]:
    """Run the coordinator in this process."""
    executor, watcher = Scripted(project.root, slots, ORDERS[order], interrupt_at), Lines()
    with Repo() as repo, lock_repo(repo):
        run = Coordinator(repo, targets, project.root, executor, watcher, force=force, keep_going=keep_going)
        run.run()
    return executor, watcher


def theirs(project: Pipeline, monkeypatch: pytest.MonkeyPatch, **arguments: object) -> None:
    """Run DVC's own in this process, in another project."""
    with monkeypatch.context() as there:
        there.chdir(project.root)
        with Repo() as repo:
            repo.reproduce(**arguments)


def same(one: Pipeline, other: Pipeline) -> None:
    """Outputs, dvc.lock, cache, run cache, .gitignore, and what git has staged."""
    assert one.files() == other.files()
    assert one.staged() == other.staged()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("slots", [1, 3])
def test_a_fresh_project_gets_the_bytes_of_dvc(project: Pipeline, finished: Pipeline, order: str, slots: int) -> None:
    """Whatever ends first; and DVC finds it up to date."""
    executor, watcher = repro(project, order, slots=slots)
    same(project, finished)
    assert executor.most == slots
    assert len(watcher.did_run) == len(GRAPH)
    with Repo() as repo:
        assert repo.status() == {}


class Edit(NamedTuple):
    """What happens to a project that is up to date, and which stages run again for it."""

    what: str
    do: Callable[[Path], object]
    ran: set[str]
    restored: frozenset[str] = frozenset()


NEW = "stages:\n  new:\n    cmd: cp zero.txt new.txt\n    deps: [zero.txt]\n    outs: [new.txt]\n"
EDITS = (
    Edit("nothing", lambda root: None, set()),
    Edit("an input of one stage", lambda root: (root / "beta.in").write_text("new\n"), {"beta", "join", "last"}),
    Edit("an input that changes nothing after", lambda root: (root / "own.in").write_text("new\n"), {"own"}),
    Edit("an output that was changed", lambda root: changed(root / "nine.txt"), set(), frozenset({"nine"})),
    Edit("an output that is gone", lambda root: (root / "join.txt").unlink(), set(), frozenset({"join"})),
    Edit("the command", lambda root: edited(root, "cat /dev/null zero.txt nine", "cat zero.txt nine"),
         {"nine"}),
    Edit("two at once", lambda root: ((root / "own.in").write_text("2\n"), (root / "alone.in").write_text("2\n")),
         {"own", "alone", "last"}),
    Edit("all of the cache but the run cache", lambda root: shutil.rmtree(root / ".dvc/cache/files"),
         {name for name, _ in GRAPH}),
    Edit("dvc.lock", lambda root: (root / "dvc.lock").unlink(), set(), frozenset(name for name, _ in GRAPH)),
    Edit("a stage that is frozen", lambda root: (edited(root, "  beta:\n", "  beta:\n    frozen: true\n"),
         (root / "beta.in").write_text("new\n")), set()),
    Edit("a stage that always runs", lambda root: edited(root, "  own:\n", "  own:\n    always_changed: true\n"),
         {"own"}),
    Edit("a stage that is new", lambda root: edited(root, "stages:\n", NEW), {"new"}),
)  # fmt: skip


def changed(path: Path) -> None:
    """Change a file that may be a link into the cache."""
    path.unlink()
    path.write_text("changed\n")


def edited(root: Path, old: str, new: str) -> None:
    """Replace text in dvc.yaml."""
    text = (root / "dvc.yaml").read_text()
    assert text.count(old) == 1
    (root / "dvc.yaml").write_text(text.replace(old, new))


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.what)
def test_what_is_stale_is_what_dvc_says(done: Pipeline, edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any edit the same stages run, and the same bytes are there."""
    edit.do(done.root)
    other = twin(done)
    executor, watcher = repro(done)
    theirs(other, monkeypatch)
    same(done, other)
    assert set(executor.ran) == set(watcher.did_run) == edit.ran
    assert set(watcher.did_restore) == edit.restored


def test_the_run_cache_brings_back_what_ran_before(done: Pipeline) -> None:
    """An edit, and its undoing: nothing runs, the former lock file is there to the byte."""
    former = done.files()
    (done.root / "zero.in").write_text("new\n")
    assert set(repro(done)[0].ran) == {"zero", "nine", "beta", "join", "last"}
    (done.root / "zero.in").write_text("in of zero\n")
    executor, watcher = repro(done)
    assert executor.ran == []
    assert set(watcher.did_restore) == {"zero", "nine", "beta", "join", "last"}
    now = done.files()
    assert {name: now[name] for name in former} == former


@pytest.mark.parametrize("at", [name for name, _ in GRAPH])
def test_an_interrupted_run_that_is_finished_leaves_what_one_run_leaves(
    project: Pipeline, finished: Pipeline, at: str
) -> None:
    """Though the first may have recorded stages after one that it had not."""
    with pytest.raises(KeyboardInterrupt):
        repro(project, interrupt_at=at)
    assert not (project.root / f"{at}.txt").exists()
    assert repro(project)[0].ran
    assert project.files() == finished.files()


def test_a_failure_stops_what_has_not_begun(project: Pipeline) -> None:
    """Nothing new starts; what ran along is recorded."""
    edited(project.root, "beta.in) > beta.txt", "beta.in) > beta.txt; exit 3")
    with pytest.raises(ReproductionError, match="beta"):
        repro(project, "first in, first out", slots=2)
    assert not (project.root / "join.txt").exists()


@pytest.mark.parametrize("order", ORDERS)
def test_keep_going_does_all_that_does_not_need_what_failed(
    project: Pipeline, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As DVC's; what ended well is recorded."""
    edited(project.root, "beta.in) > beta.txt", "beta.in) > beta.txt; exit 3")
    other = twin(project)
    with pytest.raises(ReproductionError):
        theirs(other, monkeypatch, on_error="keep-going")
    watcher = Lines()
    executor = Scripted(project.root, 3, ORDERS[order])
    with Repo() as repo, lock_repo(repo):
        run = Coordinator(repo, [], project.root, executor, watcher, keep_going=True)
        with pytest.raises(ReproductionError, match="beta"):
            run.run()
    same(project, other)
    assert [failure.addressing for failure in watcher.failures] == ["beta"]
    assert set(watcher.were_skipped) == {"join", "last"}
    assert set(watcher.did_run) == {"zero", "nine", "alone", "own"}


def test_an_output_that_was_not_left_is_a_failure(project: Pipeline) -> None:
    """Though the command said nothing of it."""
    edited(project.root, "> own.txt", "> other.txt")
    with pytest.raises(ReproductionError, match="own"):
        repro(project, targets=["own"])


def test_an_edited_lock_file_is_written_as_dvc_writes_it(done: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment, blanks and line breaks of somebody's own."""
    project = done
    lock = project.root / "dvc.lock"
    for number, (old, new) in enumerate(
        [("schema", "# mine\nschema"), ("md5: ", "md5:   "), ("cmd: ", "cmd: >-\n      ")]
    ):
        lock.write_text(lock.read_text().replace(old, new))
        (project.root / "own.in").write_text(f"{number}\n")
        other = twin(project)
        assert repro(project)[0].ran == ["own"]
        theirs(other, monkeypatch)
        assert lock.read_text() == (other.root / "dvc.lock").read_text(), old


class Named(NamedTuple):
    """A target, and the stages that it names."""

    target: str
    stages: set[str]


DEMO = "notebooks/demo/dvc.yaml"
TARGETS = (
    Named("dvc.yaml", {"a"}),
    Named("a", {"a"}),
    Named("demo", {f"{DEMO}:b@x", f"{DEMO}:b@y", f"{DEMO}:c"}),
    Named(DEMO, {f"{DEMO}:b@x", f"{DEMO}:b@y", f"{DEMO}:c"}),
    Named(f"{DEMO}:b", {f"{DEMO}:b@x", f"{DEMO}:b@y"}),
    Named(f"{DEMO}:b@x", {f"{DEMO}:b@x"}),
    Named("demo.b", {f"{DEMO}:b@x", f"{DEMO}:b@y"}),
    Named("demo.b@y", {f"{DEMO}:b@y"}),
    Named("root.a", {"a"}),
)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A stage of the project and three of a study."""
    project = Pipeline.new(tmp_path / "project")
    project.write("dvc.yaml", {"a": {"cmd": "echo a > a.txt", "outs": ["a.txt"]}})
    cell = {"matrix": {"k": ["x", "y"]}, "cmd": "cp ../../a.txt ${key}", "deps": ["../../a.txt"], "outs": ["${key}"]}
    project.write(DEMO, {"b": cell, "c": {"cmd": "cat x y > z", "deps": ["x", "y"], "outs": ["z"]}})
    project.commit("pipeline")
    monkeypatch.chdir(project.root)
    return project


@pytest.mark.parametrize("named", TARGETS, ids=lambda named: named.target)
def test_a_target_is_what_dvc_takes_or_a_study_or_a_key(study: Pipeline, named: Named) -> None:
    """And where DVC takes it too, it names the same."""
    with Repo() as repo, lock_repo(repo):
        found = find(repo.index.stages, [named.target], study.root, study.root)
        assert {stage.addressing for stage in found} == named.stages
        if "demo." not in named.target and named.target not in ("demo", "root.a"):
            assert [*found] == list(repo.stage.collect(named.target))


@pytest.mark.parametrize(
    ("target", "near"), [("dmeo", "demo"), ("demo.bb", "demo.b"), ("demo.b@z", "demo.b@y"), ("aa", "a")]
)
def test_a_target_that_names_nothing_is_told_its_near_names(study: Pipeline, target: str, near: str) -> None:
    """One line, exit code 2."""
    output = study.run("aisec", "repro", target, code=2)
    (line,) = output.splitlines()
    assert f"{target!r}" in line
    assert near in line.partition("did you mean")[2]


def test_a_study_runs_what_it_needs_and_no_more(study: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its folder too; each dvc.yaml has its own lock."""
    other = twin(study)
    assert set(repro(study, targets=["demo.b@x"])[0].ran) == {"a", f"{DEMO}:b@x"}
    monkeypatch.chdir(study.root)
    assert set(repro(study, targets=["demo"])[0].ran) == {f"{DEMO}:b@y", f"{DEMO}:c"}
    theirs(other, monkeypatch, targets=[f"{DEMO}:b@x"])
    theirs(other, monkeypatch, targets=[DEMO])
    same(study, other)


def test_dry_says_what_is_stale_and_changes_nothing(done: Pipeline) -> None:
    """What would run, why, and what may after it."""
    project = done
    (project.root / "beta.in").write_text("new\n")
    before = project.files()
    with Repo() as repo, lock_repo(repo):
        lines = list(stale(repo, [], project.root, force=False))
    assert lines == [
        "would run  beta: beta.in is modified",
        "may run    join: after beta",
        "may run    last: after join",
    ]
    assert project.files() == before


COPIED = {  # what the steps of `repro/` are taken from, and the digest of its source in the version that they are of
    "dvc.repo.reproduce._reproduce": "c763611bd0ef",
    "dvc.repo.reproduce._reproduce_stage": "32cb1baa118f",
    "dvc.repo.reproduce.reproduce": "290e8114b421",
    "dvc.stage.Stage.reproduce": "a4fd0ff85381",
    "dvc.stage.Stage.run": "d0e5527866ee",
    "dvc.stage.run.run_stage": "d4b66f275003",
    "dvc.stage.run.cmd_run": "d2696e63976b",
    "dvc.stage.run.prepare_kwargs": "b7f2672fdcd4",
    "dvc.dvcfile.ProjectFile.dump_stages": "29132648dbd7",
    "dvc.dvcfile.Lockfile.dump_stages": "be78a3c7bd28",
}
USED = """
dvc.env.DVC_ROOT dvc.env.DVC_STAGE dvc.utils.fix_env dvc.utils.parse_target dvc.utils.relpath dvc.repo.lock_repo
dvc.repo.reproduce.get_active_graph dvc.repo.reproduce.plan_repro dvc.repo.scm_context.SCMContext.track_file
dvc.stage.PipelineStage dvc.stage.Stage.changed dvc.stage.Stage.commit dvc.stage.Stage.dump
dvc.stage.Stage.remove_outs dvc.stage.Stage.save dvc.stage.Stage.save_deps dvc.stage.Stage.status
dvc.stage.cache.RunCacheNotFoundError dvc.stage.cache.StageCache.restore dvc.stage.run._make_cmd
dvc.stage.run.get_executable dvc.stage.serialize.to_single_stage_lockfile dvc.utils.serialize.dumps_yaml
dvc.utils.serialize.parse_yaml dvc.utils.serialize.parse_yaml_for_update dvc.output.Output.use_scm_ignore
scmrepo.git.Git._reset
"""  # private or not documented


def named(path: str) -> object:
    """The object that a dotted name leads to."""
    package, *rest = path.split(".")
    found = __import__(package)
    for place, part in enumerate(rest):
        if not hasattr(found, part):
            __import__(".".join([package, *rest[: place + 1]]))
        found = getattr(found, part)
    return found


def test_dvc_is_the_version_whose_steps_are_taken_apart() -> None:
    """Where this fails after an upgrade: read what changed there, change `record.py` and `lock.py`, then the digest."""
    assert dvc.__version__ == "3.67.1"
    for path in USED.split():
        assert named(path) is not None
    sources = {path: inspect.getsource(inspect.unwrap(named(path))) for path in COPIED}  # type: ignore[arg-type]
    assert {path: hashlib.sha256(text.encode()).hexdigest()[:12] for path, text in sources.items()} == COPIED


def test_the_coordinator_is_light() -> None:
    """It imports neither torch nor a kernel's libraries, nor what draws in a terminal where there is none."""
    code = (
        "import sys, aisec_lab.workbench.repro.coordinator, aisec_lab.workbench.repro.local, dvc.repo, "
        "aisec_lab.workbench.repro.progress\n"
        "print(sorted({'torch', 'pandas', 'papermill', 'ipykernel', 'nbconvert', 'rich', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
