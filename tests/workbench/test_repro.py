"""`aisec repro` on notebooks: the bytes of `dvc repro`, and nothing left where it is stopped or killed."""

import json
import random
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpecManager

from tests.workbench.kills import COMMAND, KINDS, PRELOAD, family, kill_once, member, start, until
from tests.workbench.small_pipeline import COUNT, DRAW, FAIL, Project, notebooks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("repro")]

DEMO = "notebooks/demo/dvc.yaml"
ALL = {"data", "upper", "report", f"{DEMO}:draw@0", f"{DEMO}:draw@1", f"{DEMO}:count"}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Nothing has run."""
    return notebooks(tmp_path_factory.mktemp("repro") / "fresh", seconds=0.3)


@pytest.fixture(scope="module")
def theirs(fresh: Project) -> Project:
    """What `dvc repro` makes of it."""
    project = fresh.copy(fresh.root.with_name("theirs"))
    project.run("dvc", "repro", "dvc.yaml", DEMO)
    return project


@pytest.fixture
def project(theirs: Project, tmp_path: Path) -> Project:
    """All is up to date; a copy of one's own."""
    return theirs.copy(tmp_path / "project")


def test_the_bytes_are_those_of_dvc(fresh: Project, theirs: Project, tmp_path: Path) -> None:
    """Pages with figures, tables, lock files, cache and run cache, .gitignore, what git has staged; then by force."""
    ours = fresh.copy(tmp_path / "ours")
    output = ours.run("aisec", "repro", "--jobs", "2", "dvc.yaml", "demo")
    assert f"{len(ALL)} ran" in output
    assert ours.files() == theirs.files()
    assert ours.staged() == theirs.staged()
    assert {Path(name).suffix for name in ours.files()} > {".html", ".ipynb", ".lock", ".txt"}
    page = (ours.root / "results/demo/draw-0/draw.html").read_text()
    assert page.count("data:image/png") == 3
    assert "matplotlib_inline" in page

    assert "Data and pipelines are up to date." in ours.run("aisec", "repro", "dvc.yaml", "demo").splitlines()
    assert "Data and pipelines are up to date." in ours.run("dvc", "repro", "dvc.yaml", DEMO)
    assert "Data and pipelines are up to date." in theirs.run("aisec", "repro", "dvc.yaml", "demo").splitlines()
    assert f"{len(ALL)} ran" in ours.run("aisec", "repro", "--force", "--jobs", "1", "dvc.yaml", "demo")
    assert ours.files() == theirs.files()


def test_what_is_random_differs_from_fork_to_fork(fresh: Project, tmp_path: Path) -> None:
    """Generators without a seed, names of temporary files and uuids; the environment and arguments are a kernel's."""
    project = fresh.copy(tmp_path / "project")
    cells = (
        "import json, os, random, sys, tempfile, uuid\nfrom pathlib import Path\n\nimport numpy as np\nimport torch",
        "named = [uuid.uuid4().hex, os.path.basename(tempfile.mktemp())]\n"
        "drawn = [random.random(), np.random.rand(), torch.rand(1).item(), *named]",
        "said = [os.environ['DVC_STAGE'], os.environ['OMP_NUM_THREADS'], os.getcwd(), sys.argv[1], sys.stdin.read()]\n"
        "loaded = sorted(name for name in sys.modules if name.startswith('aisec_lab'))",
        "Path(out, 'drawn.json').write_text(json.dumps([drawn, said, loaded]));",
    )
    project.notebook("notebooks/demo/draw.ipynb", *DRAW[:2], *cells)
    project.run("aisec", "repro", "demo.draw", AISEC_PRELOAD=f"{PRELOAD} torch")

    found = [json.loads((project.root / f"results/demo/draw-{seed}/drawn.json").read_text()) for seed in (0, 1)]
    (drawn, said, loaded), (others, _, _) = found
    assert all(one != other for one, other in zip(drawn, others, strict=True))
    assert said == [f"{DEMO}:draw@0", "1", str(project.root), "-f", ""]
    assert loaded == []


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_failing_cell_leaves_the_rest_recorded(fresh: Project, tmp_path: Path, jobs: str) -> None:
    """With --keep-going; its traceback is shown, and its log is named."""
    project = fresh.copy(tmp_path / "project")
    project.notebook("notebooks/demo/count.ipynb", *COUNT[:2], *FAIL[2:])
    command = ("aisec", "repro", "--keep-going", "--jobs", jobs, "dvc.yaml", "demo")
    output = project.run(*command, code=1, AISEC_PRELOAD=PRELOAD)
    assert "4 ran, 1 failed, 1 skipped" in output
    assert "ZeroDivisionError" in output
    (log,) = (line.partition("all of it: ")[2] for line in output.splitlines() if "all of it" in line)
    assert "ZeroDivisionError" in Path(log).read_text()
    assert (project.root / "results/demo/count/count.failed.ipynb").exists()
    status = project.run("dvc", "status", "dvc.yaml", DEMO)
    assert {line.split()[0].rstrip(":") for line in status.splitlines() if line[:1].isalpha() or "demo" in line} >= {
        "report",
        f"{DEMO}:count",
    }
    assert "upper" not in status.replace("upper.txt", "")


def test_a_missing_output_or_a_signal_is_a_failure(fresh: Project, tmp_path: Path) -> None:
    """What a shell's command says, and does not leave."""
    project = fresh.copy(tmp_path / "project")
    project.write(
        "dvc.yaml",
        {
            "absent": {"cmd": "echo told", "outs": ["absent.txt"]},
            "killed": {"cmd": "kill -KILL $$", "outs": ["killed.txt"]},
            "second": {"cmd": ["false", "echo never > second.txt"], "outs": ["second.txt"]},
            "good": {"cmd": 'test "$DVC_STAGE" = good && test -n "$DVC_ROOT" && echo $(pwd) > good.txt',
                     "outs": ["good.txt"], "wdir": "notebooks"},
        },
    )  # fmt: skip
    output = project.run("aisec", "repro", "--keep-going", code=1, AISEC_PRELOAD=PRELOAD)
    assert "1 ran, 3 failed" in output
    for line in ("absent: output 'absent.txt' does not exist", "killed: killed by signal 9", "second: exit code 1"):
        assert f"failed    {line}" in output
    assert (project.root / "notebooks/good.txt").read_text() == f"{project.root}/notebooks\n"


def test_ctrl_c_ends_the_stages_and_keeps_what_had_ended(fresh: Project, theirs: Project, tmp_path: Path) -> None:
    """Exit code 130 soon after, no process left, nothing half-written recorded; then the run is finished."""
    project = fresh.copy(tmp_path / "project")
    draw = (project.root / "notebooks/demo/draw.ipynb").read_bytes()
    project.notebook("notebooks/demo/draw.ipynb", *DRAW[:2], "import time\n\ntime.sleep(1000)")
    run = start(project, "interrupted", *COMMAND)
    kernels: set[psutil.Process] = set()

    def asleep() -> bool:
        kernel = member(psutil.Process(run.pid), "kernel")
        kernels.update({kernel} if kernel else set())
        running = {name for name in ("draw-0", "draw-1") if (project.root / "results/demo" / name).exists()}
        return "ran       upper" in project.root.with_name("interrupted.log").read_text() and len(running) == 2

    until(asleep, "two notebooks that sleep")
    run.send_signal(signal.SIGINT)
    until(lambda: run.poll() is not None, "the end")
    assert run.returncode == 130
    until(lambda: not family("interrupted"), "the end of all")
    output = project.root.with_name("interrupted.log").read_text()
    assert "interrupted" in output
    assert "2 ran" in output
    assert [name for name in ("dvc.lock", "notebooks/demo/dvc.lock") if (project.root / name).exists()] == ["dvc.lock"]
    (project.root / "notebooks/demo/draw.ipynb").write_bytes(draw)
    project.run("aisec", "repro", "dvc.yaml", "demo")
    assert project.files() == theirs.files()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_leaves_nothing_behind(project: Project, theirs: Project, kind: str) -> None:
    """At a random moment; 200 of them: `python -m tests.workbench.kills 200`."""
    kill_once(project, theirs.files(), kind, random.uniform(0, 1), f"{project.root.parent.name}-{kind}")


def test_what_a_stage_leaves_running_is_ended(fresh: Project, tmp_path: Path) -> None:
    """A daemon of a shell's command, and a process of a kernel's."""
    project = fresh.copy(tmp_path / "project")
    project.write("dvc.yaml", {"a": {"cmd": "setsid sleep 1000 & echo a > a.txt", "outs": ["a.txt"]}})
    project.notebook(
        "notebooks/demo/draw.ipynb",
        *DRAW[:2],
        "import subprocess\nfrom pathlib import Path\n\nsubprocess.Popen(['setsid', 'sleep', '1000'])",
        "Path(out, 'rows.txt').touch()",
    )
    cell = (project.root / "notebooks/demo/draw.ipynb").read_text().replace("'1000'])\"", "'1000']);\"")
    (project.root / "notebooks/demo/draw.ipynb").write_text(cell)
    run = start(project, "daemons", "aisec", "repro", "dvc.yaml", "demo.draw@0")
    # `data` is no stage of this dvc.yaml any more
    (project.root / "data").mkdir()
    (project.root / "data/a.txt").touch()
    until(lambda: run.poll() is not None, "the end")
    assert run.returncode == 0, project.root.with_name("daemons.log").read_text()
    assert family("daemons") == []


@pytest.mark.legacy
def test_another_kernel_starts_the_ordinary_way_and_dies_with_its_runner(fresh: Project, tmp_path: Path) -> None:
    """The legacy kernel: the same bytes as with `dvc repro`; killed along."""
    if "aisec-legacy" not in KernelSpecManager().find_kernel_specs():
        pytest.skip("no kernel aisec-legacy: `make legacy`")
    project = fresh.copy(tmp_path / "project")
    cells = (
        "import os, sys, time\nfrom pathlib import Path",
        "print('legacy' in sys.prefix)",
        "Path(out, 'rows.txt').touch()",
    )
    for folder, end in (("quick", ""), ("slow", "time.sleep(1000)")):
        project.notebook(f"notebooks/old/{folder}.ipynb", *DRAW[:2], *cells, end or "1", kernel="aisec-legacy")
    stages = {
        name: {"cmd": f"aisec run notebooks/old/{name}.ipynb results/old/{name}", "outs": [f"results/old/{name}"],
               "deps": [f"notebooks/old/{name}.ipynb"], "wdir": "../.."}
        for name in ("quick", "slow")
    }  # fmt: skip
    project.write("notebooks/old/dvc.yaml", stages)
    other = project.copy(tmp_path / "other")
    project.run("aisec", "repro", "old.quick", AISEC_PRELOAD=PRELOAD)
    other.run("dvc", "repro", "notebooks/old/dvc.yaml:quick")
    assert project.files() == other.files()
    assert "True" in (project.root / "results/old/quick/quick.html").read_text()
    for number, kind in enumerate(("runner", "coordinator")):
        mark = f"legacy-{number}"
        run = start(project, mark, "aisec", "repro", "old.slow")
        until(lambda mark=mark: any("ipykernel_launcher" in one.cmdline() for one in family(mark)), "the kernel")
        victim = member(psutil.Process(run.pid), kind)
        assert victim
        victim.kill()
        until(lambda mark=mark, run=run: run.poll() is not None and not family(mark), "the end of all")


def test_without_a_warm_process_a_shell_runs_each_stage(fresh: Project, theirs: Project, tmp_path: Path) -> None:
    """Where that process finds that it cannot be forked, it says so, and the bytes are the same."""
    project = fresh.copy(tmp_path / "project")
    (project.root / "threads.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    output = project.run(
        "aisec", "repro", "dvc.yaml", "demo.draw@0", AISEC_PRELOAD=f"{PRELOAD} threads",
        PYTHONPATH=f"{project.environment()['PYTHONPATH']}:{project.root}",
    )  # fmt: skip
    assert "without a warm process" in output
    assert "cannot be forked safely" in (project.root / ".dvc/tmp/aisec/logs/server.log").read_text()
    (project.root / "threads.py").unlink()
    name = "results/demo/draw-0/draw.html"
    assert project.files()[name] == theirs.files()[name]


def test_two_runs_do_not_meet(project: Project) -> None:
    """DVC's lock is held throughout: the second is told so in one line, and changes nothing."""
    run = start(project, "first", *COMMAND)
    until(lambda: member(psutil.Process(run.pid), "server"), "the first")
    output = project.run("aisec", "repro", "dvc.yaml", code=2)
    assert "lock" in output
    assert len(output.splitlines()) == 1
    run.send_signal(signal.SIGINT)
    until(lambda: run.poll() is not None, "the end of the first")


def test_a_terminal_is_drawn_on_and_a_pipe_is_not(project: Project) -> None:
    """Control codes, the time of the last run and the time that is left; in a pipe plain lines."""
    command = "aisec repro --force --jobs 1 demo.count --single 2>&1 || aisec repro --force --jobs 1 dvc.yaml"
    plain = project.run("sh", "-c", command, AISEC_PRELOAD=PRELOAD)
    assert "\x1b" not in plain
    assert "started   upper" in plain
    drawn = subprocess.run(
        ["script", "-qec", "aisec repro --force --jobs 1 dvc.yaml", "/dev/null"],
        cwd=project.root,
        env=project.environment(AISEC_PRELOAD=PRELOAD, TERM="xterm", COLUMNS="100"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert drawn.returncode == 0, drawn.stdout
    assert "\x1b" in drawn.stdout
    assert "last time" in drawn.stdout
    assert " left" in drawn.stdout
    assert "ran       upper in" in drawn.stdout
