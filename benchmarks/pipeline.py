"""The researcher's loop: what a rerun costs, in time, processor and memory.

`python -m benchmarks.pipeline --before CLONE`, where CLONE is a second clone of the project at commit 7f491c0, in which
`dvc repro train evaluate diagnose` has been run once. Figures are ratios of runs in turn; `pipeline.json` keeps them.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import nbformat
import psutil

from aisec_lab.core.files import write_json
from benchmarks.clone import ROOT, Clone

OUT = Path(__file__).with_suffix(".json")
FORMER = "7f491c0"
FORMER_STAGES = ("data", "train", "evaluate", "diagnose")  # of the robustness study there
FEW, MANY = 2, 12  # empty stages; the difference is what one of them costs


class Cost(NamedTuple):
    """What a command took."""

    wall: float  # seconds
    cpu: float  # seconds of processor, of the command and of all that it started and waited for
    memory: float  # GiB, largest sum over its processes; pages that they share count once


def cost(command: Sequence[str], root: Path) -> Cost:
    """Run a command in a project, with that project's package, and say what it took."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(root), "PATH": path, "OMP_NUM_THREADS": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    running = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak, ended = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(running.pid, peak, ended))
    watcher.start()
    output, _ = running.communicate()
    wall = time.monotonic() - began
    ended.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if running.returncode:
        raise RuntimeError(f"{' '.join(command)} in {root}: {output[-3000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, peak[0])


def _watch(pid: int, peak: list[float], ended: threading.Event) -> None:
    """Look at a process and its descendants twice a second until it has ended."""
    while not ended.wait(0.5):
        total = 0
        for process in _family(pid):
            try:
                total += process.memory_full_info().pss
            except psutil.Error:  # it ended between the two looks
                continue
        peak[0] = max(peak[0], total / 2**30)


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def robustness(before: Path, runs: int) -> dict[str, Any]:
    """The robustness study, forced: the former pipeline, this one's `dvc repro`, and `aisec repro`, in turn."""
    commands = {
        "former": (("dvc", "repro", "--force", *FORMER_STAGES[1:]), before),
        "dvc": (("dvc", "repro", "--force", "notebooks/robustness/dvc.yaml"), ROOT),
        "aisec": (("aisec", "repro", "--force", "--jobs", "2", "robustness"), ROOT),
    }
    taken: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, (command, root) in commands.items():
            taken[name].append(cost(command, root))
            click.echo(f"{name}: {taken[name][-1]}")

    def ratio(one: str, other: str, what: str) -> float:
        pairs = zip(taken[one], taken[other], strict=True)
        return median(getattr(a, what) / getattr(b, what) for a, b in pairs)

    return {
        "runs": runs,
        "seconds": {name: {what: median(getattr(c, what) for c in costs) for what in ("wall", "cpu")}
                    for name, costs in taken.items()},
        "aisec over former, wall": ratio("aisec", "former", "wall"),
        "aisec over former, cpu": ratio("aisec", "former", "cpu"),
        "aisec over dvc, wall": ratio("aisec", "dvc", "wall"),
        "dvc over former, wall": ratio("dvc", "former", "wall"),
        "memory, GiB": max(c.memory for c in taken["aisec"]),
    }  # fmt: skip


def empty_stages(root: Path, number: int) -> Clone:
    """A project whose pipeline is `code` and so many notebooks that do nothing."""
    root.mkdir()
    clone = Clone(root)
    for study in (root / "notebooks").iterdir():
        shutil.rmtree(study)
    (root / "notebooks/empty").mkdir()
    cells = [
        nbformat.v4.new_markdown_cell("# Nothing"),
        nbformat.v4.new_code_cell(
            'cell = 0\nout = "scratch"\noverrides: list[str] = []', metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell("from aisec_lab.workbench import configure\n\ncfg = configure(overrides, reads=[])"),
    ]
    kernel = {"name": "aisec-lab", "display_name": "aisec-lab", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}),
        root / "notebooks/empty/empty.ipynb",
    )
    code = {
        "cmd": "aisec code",
        "deps": ["aisec_lab", "params.yaml", "notebooks/empty/empty.ipynb"],
        "outs": ["code.json", "reach.json"],
    }
    (root / "dvc.yaml").write_text(json.dumps({"stages": {"code": code}}))
    empty = {
        "wdir": "../..",
        "matrix": {"cell": list(range(number))},
        "cmd": "aisec run notebooks/empty/empty.ipynb results/empty/${key} -p cell=${key}",
        "params": [{"code.json": ["empty.empty@${key}"]}],
        "deps": ["notebooks/empty/empty.ipynb"],
        "outs": ["results/empty/${key}"],
    }
    (root / "notebooks/empty/dvc.yaml").write_text(json.dumps({"stages": {"empty": empty}}))
    return clone


def one_stage() -> dict[str, float]:
    """Seconds of processor that a notebook costs which does nothing, with each runner."""
    found = {}
    with TemporaryDirectory() as folder:
        projects = {number: empty_stages(Path(folder) / str(number), number).root for number in (FEW, MANY)}
        for name, command in (
            ("dvc repro", ["dvc", "repro", "--force", "notebooks/empty/dvc.yaml"]),
            ("aisec repro", ["aisec", "repro", "--force", "--jobs", "1", "empty"]),
        ):
            for root in projects.values():
                cost(command, root)
            taken = [{number: cost(command, root).cpu for number, root in projects.items()} for _ in range(3)]
            found[name] = median((pair[MANY] - pair[FEW]) / (MANY - FEW) for pair in taken)
            click.echo(f"a notebook that does nothing, {name}: {found[name]:.2f} s")
    return found


def import_ratio() -> float:
    """What `import aisec_lab.attacks` takes, over what `import torch` takes."""
    python = sys.executable
    pairs = [
        cost([python, "-c", "import aisec_lab.attacks"], ROOT).cpu / cost([python, "-c", "import torch"], ROOT).cpu
        for _ in range(7)
    ]
    return median(pairs)


def lines(name: str) -> int:
    """Lines of the project's files of that name in git, at its top and in its studies."""
    command = ["git", "ls-files", name, f"notebooks/*/{name}"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sum((ROOT / file).read_text().count("\n") for file in listed.splitlines())


@click.command()
@click.option("--before", type=click.Path(exists=True, path_type=Path), help=f"A clone at {FORMER}, run once.")
@click.option("--runs", default=1, show_default=True, help="Rounds of the robustness study.")
def main(before: Path | None, runs: int) -> None:
    """Measure, and write the results beside this file; without --before the former figures of the study stay."""
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    found["lines of dvc.lock"], found["lines of dvc.yaml"] = lines("dvc.lock"), lines("dvc.yaml")
    found["import aisec_lab.attacks over import torch, cpu"] = import_ratio()
    found["nothing to do, cpu seconds"] = median(cost(["aisec", "repro"], ROOT).cpu for _ in range(3))
    found["a notebook that does nothing, cpu seconds"] = one_stage()
    if before:
        found["robustness study, forced"] = robustness(before.resolve(), runs)
    write_json(OUT, found)
    click.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
