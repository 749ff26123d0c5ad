"""`aisec repro --cluster` on two Ray nodes of this machine, whose copies of the project share nothing but Ray."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.clone import Clone, Project
from tests.nodes import HANGS, HOST, Cluster, run, start
from tests.reproducible import differing, digests

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("small")]
FILES = {
    "dvc.yaml": """
stages:
  numbers:
    cmd: python steps/numbers.py data/numbers
    deps: [steps/numbers.py]
    outs: [data/numbers]
  hold:
    matrix: {side: [left, right]}
    cmd: python steps/hold.py results/hold/${item.side}.txt
    deps: [steps/hold.py, data/numbers]
    outs: ["results/hold/${item.side}.txt"]
  table:
    cmd: python steps/table.py
    deps: [steps/table.py, aisec_lab/edited.py, results/hold]
    outs: [results/table.json: {cache: false}]
  broken:
    cmd: python steps/broken.py
    deps: [steps/broken.py]
    outs: [results/broken]
""",
    "steps/numbers.py": """
import sys
from pathlib import Path
place = Path(sys.argv[1])
(place / "empty").mkdir(parents=True)
(place / "nothing").touch()
(place / "many.bin").write_bytes(bytes(range(256)) * 80_000)  # more than is sent at once
""",
    "steps/hold.py": """
import os, sys, time
from pathlib import Path
assert sorted(path.name for path in Path("data/numbers").iterdir()) == ["empty", "many.bin", "nothing"]
assert not any(name.startswith("RAY_") for name in os.environ), "a stage sees Ray's token"
trap = Path(os.environ.get("TRAP", "none"), "set")  # where it is there, the node that may be caught is
if trap.exists() and os.environ["CAUGHT"] == "yes":
    trap.rename(trap.with_name("sprung"))
    time.sleep(3600)
while trap.exists():
    time.sleep(0.05)
Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
Path(sys.argv[1]).write_text("held")
""",
    "steps/table.py": """
from pathlib import Path
from aisec_lab.edited import VALUE
held = sum(path.stat().st_size for path in Path("results/hold").glob("*.txt"))
Path("results/table.json").write_text(f'["{VALUE}", {held}]')
""",
    "steps/broken.py": """
from pathlib import Path
Path("results/broken").mkdir(parents=True)
Path("results/broken/half").write_text("done")
raise SystemExit("what went wrong")
""",
    "aisec_lab/edited.py": "VALUE = 'committed'\n",
    ".gitignore": "__pycache__/\n/.dvc/config.local\n",
    "params.yaml": "{}\n",
}


def recorded(project: Project) -> dict[str, str]:
    """What a run leaves: outputs, locks, what a stage that failed had written, and the names in DVC's cache."""
    cache = {str(path.relative_to(project.root)): "" for path in (project.root / ".dvc/cache").glob("*/*/*/*")}
    folders = {str(path.relative_to(project.root)): "" for path in project.root.glob("data/**/") if path.is_dir()}
    return cache | folders | digests(project.root)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project of shell commands, not run."""
    project = Clone(tmp_path_factory.mktemp("steps") / "project", ["aisec_lab/", ".dvc/", ".dvcignore"])
    for name, text in FILES.items():
        (project.root / name).parent.mkdir(exist_ok=True)
        (project.root / name).write_text(text)
    project.commit("steps")
    return project


@pytest.fixture(scope="module")
def expected(steps: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one machine leaves of it."""
    alone = edited(steps.copy(tmp_path_factory.mktemp("alone") / "project"))
    alone.run("aisec", "repro", "--keep-going", code=1)
    return recorded(alone)


@pytest.fixture(scope="module")
def cluster(steps: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Its nodes have copies of that project, whatever is run on them."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), steps)
    yield cluster
    cluster.close()


@pytest.fixture
def lab(steps: Project, tmp_path: Path) -> Project:
    """Where a coordinator runs; it has a change that no node has."""
    return edited(steps.copy(tmp_path / "lab"))


def edited(project: Project) -> Project:
    """With a change that is committed nowhere."""
    (project.root / "aisec_lab/edited.py").write_text("VALUE = 'edited'\n")
    return project


def test_the_small_pipeline_gives_the_same_bytes(
    small: Project, small_sources: Project, cluster: Cluster, tmp_path: Path
) -> None:
    """From a node, and a folder as remote: it gets what stages need and leave; the nodes have another project."""
    cluster.begin_other()
    lab, between = small_sources.copy(tmp_path / "lab"), tmp_path / "remote"
    for project in (lab, *cluster.copies.values()):
        project.run("dvc", "remote", "add", "--local", "-d", "between", str(between))
    run(lab, "aisec", "repro", "--cluster", cluster.address, **cluster.environment)
    for project in cluster.copies.values():
        project.run("dvc", "remote", "remove", "--local", "between")
    assert differing(recorded(small), recorded(lab)) == []
    lab.commit("run")
    assert lab.git("ls-files") == small.git("ls-files")
    assert "up to date" in lab.run("aisec", "repro")
    assert "@" in "".join(cluster.ran("head")), "one node ran all notebooks"
    assert "@" in "".join(cluster.ran("other")), "one node ran all notebooks"
    cached = {path.name for path in (lab.root / ".dvc/cache/files/md5").glob("??/*") if path.suffix != ".dir"}
    assert cached <= {path.name for path in between.rglob("*")}, "something took another way"


def test_a_node_that_is_killed_costs_its_stage(lab: Project, cluster: Cluster, expected: dict[str, str]) -> None:
    """From a machine that is no node, by the object store; the second node dies in the middle of a stage."""
    cluster.begin_other()
    cluster.ran("head"), cluster.ran("other")
    (cluster.trap / "set").touch()
    repro = start(lab, "aisec", "repro", "--keep-going", "--cluster", cluster.client, **cluster.environment)
    while not (cluster.trap / "sprung").exists():
        assert repro.poll() is None, repro.communicate()[0]
        time.sleep(0.1)
    caught = cluster.ran("other")
    cluster.ended("other")
    output, _ = repro.communicate(timeout=HANGS)
    assert repro.returncode == 1, output
    assert "what went wrong" in output
    assert differing(expected, recorded(lab)) == []
    assert json.loads((lab.root / "results/table.json").read_text()) == ["edited", 8]
    assert (lab.root / "results/broken/half").read_text() == "done"
    (again,) = {"hold@left", "hold@right"} & caught & cluster.ran("head")
    assert "is lost" in (lab.root / f".dvc/tmp/aisec/logs/root.{again}.log").read_text()
    assert "up to date" in lab.run("aisec", "repro", "table")


def test_ray_listens_on_loopback_only(cluster: Cluster) -> None:
    places = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in cluster.processes("head")
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert places == {HOST}


class Refused(NamedTuple):
    """A command without the right token, and what it says."""

    words: tuple[str, ...]
    token: str | None
    says: str


REFUSED = [
    Refused(("repro", "--cluster", "{client}"), "wrong", "refuses the token of this machine"),
    Refused(("repro", "--cluster", "{address}"), "wrong", "refuses the token of this machine"),
    Refused(("repro", "--cluster", "{client}"), None, "this machine has none: make one with"),
    Refused(("node", "--address", "{address}"), "wrong", "refuses the token of this machine"),
    Refused(("node", "--head"), None, "this machine has none: make one with"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.words[0]} {case.words[-1]} {case.token}")
def test_nobody_enters_without_the_token(case: Refused, lab: Project, cluster: Cluster, tmp_path: Path) -> None:
    words = [word.format(client=cluster.client, address=cluster.address) for word in case.words]
    token = {} if case.token is None else {"RAY_AUTH_TOKEN": case.token}
    output = run(lab, "aisec", *words, code=2, HOME=str(tmp_path), **token)
    assert case.says in output
    assert len(output.splitlines()) == 1, output
    assert not (lab.root / "dvc.lock").exists()
