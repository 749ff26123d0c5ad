"""`aisec repro` on notebooks in forks: the bytes of ordinary kernels, and nothing that a stage leaves running."""

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.family import Family, until
from tests.small import LEGACY
from tests.workbench.small_pipeline import COUNT, DRAW, FAIL, PRELOAD, Pipeline, notebooks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("repro")]

DEMO = "notebooks/demo/dvc.yaml"
NUMBER = 6  # stages
LONG = 300.0  # seconds, on a busy machine


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Nothing has run."""
    return notebooks(tmp_path_factory.mktemp("repro") / "fresh")


@pytest.fixture
def project(fresh: Pipeline, tmp_path: Path) -> Pipeline:
    """A copy of one's own, whose fork server imports little."""
    return fresh.copy(tmp_path / "project", AISEC_PRELOAD=PRELOAD)


def test_a_fork_is_as_a_process_of_its_own(project: Pipeline) -> None:
    """No generator that nobody seeds draws as in another fork; environment, arguments and modules are its own."""
    project.more["AISEC_PRELOAD"] += " torch"
    cells = (
        "import json, os, random, sys, tempfile, uuid\nfrom pathlib import Path\n\nimport numpy as np\nimport torch",
        "named = [uuid.uuid4().hex, os.path.basename(tempfile.mktemp())]\n"
        "drawn = [random.random(), np.random.rand(), torch.rand(1).item(), *named]",
        "said = [os.environ['DVC_STAGE'], os.environ['OMP_NUM_THREADS'], os.getcwd(), sys.argv[1], sys.stdin.read()]\n"
        "loaded = sorted(name for name in sys.modules if name.startswith('aisec_lab'))",
        "Path(out, 'drawn.json').write_text(json.dumps([drawn, said, loaded]));",
    )
    project.notebook("notebooks/demo/draw.ipynb", *DRAW[:2], *cells)
    project.run("aisec", "repro", "demo.draw")
    found = [json.loads((project.root / f"results/demo/draw-{seed}/drawn.json").read_text()) for seed in (0, 1)]
    (drawn, said, loaded), (others, *_) = found
    assert all(one != other for one, other in zip(drawn, others, strict=True))
    assert said == [f"{DEMO}:draw@0", "1", str(project.root), "-f", ""]
    assert loaded == []


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_failing_cell_is_shown_and_its_log_is_named(project: Pipeline, jobs: str) -> None:
    """With --keep-going; what needs it is skipped, the rest is recorded."""
    project.notebook("notebooks/demo/count.ipynb", *COUNT[:2], *FAIL[2:])
    output = project.run("aisec", "repro", "--keep-going", "--jobs", jobs, "dvc.yaml", "demo", code=1)
    assert "4 ran, 1 failed, 1 skipped" in output
    (log,) = (line.partition("all of it: ")[2] for line in output.splitlines() if "all of it" in line)
    assert "ZeroDivisionError" in output
    assert "ZeroDivisionError" in Path(log).read_text()
    assert (project.root / "results/demo/count/count.failed.ipynb").exists()


def test_a_missing_output_or_a_signal_is_a_failure(project: Pipeline) -> None:
    """Of a shell's command; a second one runs only after a first that ended well, where the stage says and as DVC's."""
    project.write(
        "dvc.yaml",
        {
            "absent": {"cmd": "echo told", "outs": ["absent.txt"]},
            "killed": {"cmd": "kill -KILL $$", "outs": ["killed.txt"]},
            "second": {"cmd": ["false", "echo never > second.txt"], "outs": ["second.txt"]},
            "good": {"cmd": 'test "$DVC_STAGE" = good && test -n "$DVC_ROOT" && pwd > good.txt',
                     "outs": ["good.txt"], "wdir": "notebooks"},
        },
    )  # fmt: skip
    output = project.run("aisec", "repro", "--keep-going", code=1)
    assert "1 ran, 3 failed" in output
    for line in ("absent: output 'absent.txt' does not exist", "killed: killed by signal 9", "second: exit code 1"):
        assert f"failed    {line}" in output
    assert (project.root / "notebooks/good.txt").read_text() == f"{project.root}/notebooks\n"


def test_what_a_stage_leaves_running_is_ended(project: Pipeline) -> None:
    """A daemon of a shell's command, and a process of a kernel's, whatever session they are in."""
    project.write("dvc.yaml", {"data": {"cmd": "mkdir data; setsid sleep 1000 & echo >data/a", "outs": ["data"]}})
    daemon = "import subprocess\nfrom pathlib import Path\n\nsubprocess.Popen(['setsid', 'sleep', '1000']);"
    project.notebook("notebooks/demo/draw.ipynb", *DRAW[:2], daemon, "Path(out, 'rows.txt').touch()")
    log = project.root / ".dvc/tmp/daemons.log"
    with log.open("w") as out:
        run = Family(project, ("aisec", "repro", "demo.draw@0"), out)
        assert run.head.wait(LONG) == 0, log.read_text()
    assert run.members() == []


@pytest.mark.legacy
@pytest.mark.skipif(not LEGACY, reason="there is no kernel aisec-legacy: `make legacy` makes it")
def test_another_kernel_dies_with_its_runner(project: Pipeline) -> None:
    """It is started the ordinary way."""
    project.notebook("notebooks/old/slow.ipynb", *DRAW[:2], "import time\n\ntime.sleep(1000)", kernel="aisec-legacy")
    stage = {"cmd": "aisec run notebooks/old/slow.ipynb results/old/slow", "outs": ["results/old/slow"]}
    project.write("notebooks/old/dvc.yaml", {"slow": {**stage, "wdir": "../.."}})
    for depth in (2, 1, 0):  # the runner, the server, the coordinator
        with (project.root / ".dvc/tmp/legacy.log").open("w") as out:
            run = Family(project, ("aisec", "repro", "old.slow"), out)
            until(lambda run=run: any("ipykernel_launcher" in one.cmdline() for one in run.members()), LONG)  # type: ignore[misc]
            (victim,) = (one for one in run.members() if run.depth(one) == depth)
            victim.kill()
            assert run.ended(LONG) != 0


def test_without_a_warm_process_a_shell_runs_each_stage(project: Pipeline) -> None:
    """Where that process finds that it cannot be forked it says so; the bytes are those of forks, figures and all."""
    assert f"{NUMBER} ran" in project.run("aisec", "repro", "--jobs", "2", "dvc.yaml", "demo")
    forked, staged = project.files(), project.staged()
    page = (project.root / "results/demo/draw-0/draw.html").read_text()
    assert page.count("data:image/png") == 3
    assert "matplotlib_inline" in page
    project.more["AISEC_PRELOAD"] += " threads"
    (project.root / "threads.py").write_text(
        "import threading\n\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    output = project.run("aisec", "repro", "--force", "--jobs", "2", "dvc.yaml", "demo")
    assert "without a warm process" in output
    assert "cannot be forked" in (project.root / ".dvc/tmp/aisec/logs/server.log").read_text()
    (project.root / "threads.py").unlink()
    assert (project.files(), project.staged()) == (forked, staged)


def test_a_second_run_waits_for_no_first(project: Pipeline) -> None:
    """DVC's lock is held throughout: the second is told so in one line, and changes nothing; Ctrl-C ends the first."""
    project.write("dvc.yaml", {"slow": {"cmd": "echo a > a.txt; sleep 1000", "outs": ["a.txt"]}})
    with (project.root / ".dvc/tmp/first.log").open("w") as out:
        run = Family(project, ("aisec", "repro"), out)
        until(lambda: (project.root / "a.txt").exists(), LONG)
        (line,) = project.run("aisec", "repro", code=2).splitlines()
        assert "lock" in line
        run.head.send_signal(signal.SIGINT)
        assert run.ended(LONG) == 130
    assert not (project.root / "dvc.lock").exists()
    assert "interrupted" in (project.root / ".dvc/tmp/first.log").read_text()


def test_a_terminal_is_drawn_on_and_a_pipe_is_not(project: Pipeline) -> None:
    """What runs, how long it took last time, and what is left; in a pipe plain lines."""
    project.write("dvc.yaml", {"slow": {"cmd": "sleep 2; echo a > a.txt", "outs": ["a.txt"]}})
    plain = project.run("aisec", "repro")
    assert "\x1b" not in plain
    assert "started   slow" in plain
    drawn = subprocess.run(
        ["script", "-qec", "aisec repro --force", "/dev/null"],
        cwd=project.root,
        env=project.environment | {"TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert drawn.returncode == 0, drawn.stdout
    for shown in ("\x1b", "  slow  ", "last time", " left", "ran       slow in"):
        assert shown in drawn.stdout
    assert not [one for one in psutil.Process().children(recursive=True) if "fork_server" in " ".join(one.cmdline())]
