"""The pipeline, run from end to end in small: what it leaves, and what a change of the configuration makes stale."""

import json
import re
import shutil
import socket
import sys
from contextlib import chdir
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
import yaml

from aisec_lab.workbench.stages import Declared, declared, experiments, studies
from tests.clone import SMALL, Project
from tests.reproducible import differing, digests

pytestmark = [pytest.mark.xdist_group("study"), pytest.mark.slow]

EVALUATE = Path("results/robustness/evaluate")
WORST = "robustness, digits, CNN(width=16, hidden=64), standard, seed 0: robust_accuracy under worst_case at Linf 0.15"
IN_GIT = ["results/metrics.json", "results/summary/robustness/pareto.png"]


@pytest.fixture(scope="module")
def stages(study: Project) -> list[Declared]:
    """What this study declares."""
    with chdir(study.root):
        return declared()


def stale(project: Project) -> set[str]:
    """The stages whose own command, inputs or parameters are not those of their last run."""
    project.aisec("code")
    return set(re.findall(r"^would run +(\S+):", project.run("aisec", "repro", "--dry"), re.MULTILINE))


def test_every_stage_ran_once(first_run: tuple[Project, str], stages: list[Declared]) -> None:
    """All studies are reached from the root, and every notebook but those of the tests is in a stage."""
    study, said = first_run
    ran = re.findall(r"^ran +(\S+) in", said, re.MULTILINE)
    assert sorted(ran) == sorted(stage.address for stage in stages)
    notebooks = {stage.notebook for stage in stages if stage.runs_notebook}
    assert notebooks == {path.relative_to(study.root) for path in study.root.glob("notebooks/*/*.ipynb")}
    assert study.git("status", "--porcelain") == ""


def test_a_second_run_does_nothing(study: Project) -> None:
    """Neither by DVC, not even where a killed run has left a file that it was about to rename, nor by `aisec repro`."""
    leftover = study.root / "results/robustness/train/standard-0/.history.parquet.1.part"
    leftover.touch()
    output = study.run("dvc", "repro")
    leftover.unlink()
    assert "Data and pipelines are up to date." in output
    assert "Running stage" not in output
    assert "Data and pipelines are up to date." in study.run("aisec", "repro")


def test_the_kinds_of_files_are_those_that_can_be_compared_by_byte(study: Project) -> None:
    """Data, models, tables, notebooks, pages and figures; no pickle, no archive with dates in it."""
    kinds = {Path(name).suffix for name in digests(study.root)}
    assert kinds == {".lock", ".npz", ".json", ".safetensors", ".parquet", ".ipynb", ".html", ".csv", ".png"}


def test_a_byte_that_differs_is_noticed(study: Project) -> None:
    """By what `make reproducible` compares: a table's, and a study's lock."""
    for name in ("results/table.parquet", "notebooks/privacy/dvc.lock"):
        before, path = digests(study.root), study.root / name
        content = path.read_bytes()
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        changed = differing(before, digests(study.root))
        path.unlink()
        absent = differing(before, digests(study.root))
        path.write_bytes(content)
        assert changed == absent == [name]


def test_git_holds_the_metrics_and_one_figure_of_what_was_computed(study: Project) -> None:
    """And DVC's cache holds everything but these."""
    assert study.git("ls-files", "data", "models", "results", "reports").splitlines() == IN_GIT
    cached = {path.parent.name + path.name for path in (study.root / ".dvc/cache/files/md5").glob("*/*")}
    locks = [study.root / "dvc.lock", *study.root.glob("notebooks/*/dvc.lock")]
    stages = [stage for lock in locks for stage in yaml.safe_load(lock.read_text())["stages"].values()]
    outputs = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", ())}
    assert set(IN_GIT) < set(outputs)
    for path, md5 in outputs.items():
        assert (md5 in cached) == (path not in IN_GIT), path


def test_no_file_says_where_when_or_by_whom_it_was_made(study: Project) -> None:
    """Path, home, host, date, memory address: none is in what a reader is sent or what is compared by byte."""
    words = [str(study.root), sys.prefix, f"{Path.home()}/", f"{date.today():%Y-%m-%d}"]
    marks = [*map(re.escape, words), r" at 0x[0-9a-f]{6,}"]
    host = rf"(?<![\w+/]){re.escape(socket.gethostname())}(?![\w+/=])"  # may be short: not inside an image's base64
    for name in digests(study.root):
        binary = Path(name).suffix in (".npz", ".parquet", ".png", ".safetensors")
        content = (study.root / name).read_text("latin-1")
        assert not [mark for mark in [*marks, *([] if binary else [host])] if re.search(mark, content)], name


def test_dvc_shows_metrics_and_plots(study: Project) -> None:
    """Every claim by its name, and a page with the curves and the notebooks' figures."""
    shown = json.loads(study.run("dvc", "metrics", "show", "--json"))
    (metrics,) = (found["data"] for found in shown[""]["data"].values())
    assert set(metrics["claims"][WORST]) == {"value", "low", "high"}
    study.run("dvc", "plots", "show")
    page = (study.root / "dvc_plots/index.html").read_text()
    for plot in ("Security curves", "pareto.png", "security_curves.png"):
        assert plot in page
    assert study.git("status", "--porcelain") == ""


def test_another_eps_makes_this_attack_stale_and_the_verdict_that_uses_it(restored: Project) -> None:
    """And the report, which shows the hash of params.yaml; what reads their results follows when these change."""
    restored.aisec("compose", *SMALL, "attacks.square.ball.eps=0.2")
    robustness = "notebooks/robustness/dvc.yaml"
    attacks = {f"{robustness}:evaluate@standard-none-square-0", f"{robustness}:diagnose@standard-none-0"}
    assert stale(restored) == {"code", "report", *attacks}


def test_another_seed_makes_only_the_new_model_s_stages_stale(restored: Project, stages: list[Declared]) -> None:
    """Its training, its attacks and its verdict; no other study asks about this seed."""
    restored.aisec("compose", *SMALL, "study.seeds=[0,1]")
    new = {stage.address[:-1] + "1" for stage in experiments(stages, "robustness")}
    reads_the_grid = {"collect@robustness", "notebooks/robustness/dvc.yaml:summary", "report"}
    assert stale(restored) == {"code", *new, *reads_the_grid}


def test_a_broken_promise_ends_the_pipeline(study: Project, tmp_path: Path) -> None:
    """A lower bound above its upper one is an error, and no page."""
    table = pd.read_parquet(study.root / "results/tables/privacy/table.parquet")
    table.loc[(table.metric == "epsilon_lower") & (table.defense == "epsilon_3"), "value"] = 99.0
    table.to_parquet(tmp_path / "table.parquet", index=False)
    summary, out = "notebooks/privacy/summary.ipynb", "scratch/privacy"
    output = study.run("aisec", "run", summary, out, "-p", f"table={tmp_path / 'table.parquet'}", code=2)
    assert "epsilon_3: lira shows epsilon >= 99" in output
    assert not (study.root / out / "summary.html").exists()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", f"results missing: {EVALUATE}/standard-none-square-0; run `aisec repro`"),
        (
            "stray",
            f"that no stage declares: {EVALUATE}/standard-none-square-7; rm -r {EVALUATE}/standard-none-square-7",
        ),
        ("column", "square-0/rows.parquet lacks the columns ['size']: run its stage again"),
        (
            "unread",
            f"{EVALUATE}/standard-none-square-0 holds no rows.parquet and no stage reads it: save rows, or drop",
        ),
    ],
)
def test_collect_refuses_results_that_are_not_the_declared_ones(study: Project, case: str, message: str) -> None:
    """One line, exit code 2, and the table of before."""
    cell, other = study.root / EVALUATE / "standard-none-square-0", study.root / EVALUATE / "standard-none-square-7"
    kept = study.root / "scratch/cell"
    shutil.copytree(cell, kept)
    if case == "missing":
        shutil.rmtree(cell)
    elif case == "stray":
        shutil.copytree(cell, other)
    elif case == "unread":
        (cell / "rows.parquet").unlink()
    else:
        pd.read_parquet(cell / "rows.parquet").drop(columns="size").to_parquet(cell / "rows.parquet")
    before = digests(study.root)
    output = study.aisec("collect", "robustness", code=2)
    after = digests(study.root)
    shutil.rmtree(other, ignore_errors=True)
    shutil.rmtree(cell, ignore_errors=True)
    shutil.move(kept, cell)
    assert message in output
    assert len(output.splitlines()) == 1
    assert after == before


def test_collect_knows_its_studies(study: Project, stages: list[Declared]) -> None:
    """A name that is none is answered with those that are."""
    assert f"no study 'robustnes': there are {studies(stages)}" in study.aisec("collect", "robustnes", code=2)


def test_verify_says_which_claims_are_reproduced(restored: Project) -> None:
    """All of them at first; then a claim that was touched is named, and a claim about other data is refused."""
    output = restored.aisec("verify")
    assert re.search(r"^(\d+) of \1 claims reproduced$", output, re.MULTILINE)
    path = restored.root / "results/metrics.json"
    found = path.read_text()

    def claim(change: dict[str, object]) -> None:
        path.write_text(json.dumps(json.loads(found) | change))
        restored.commit("a claim")
        path.write_text(found)

    claims = json.loads(found)["claims"]
    claim({"claims": claims | {WORST: claims[WORST] | {"value": 0.5}}})
    lost = [line for line in restored.aisec("verify", code=1).splitlines() if line.startswith("NOT reproduced")]
    claim({"data": {"name": "mnist", "sha256": "0"}})
    refused = restored.aisec("verify", code=2)
    restored.git("reset", "-q", "HEAD~2")
    assert len(lost) == 1
    assert f"{WORST}: claimed 0.5000" in lost[0]
    assert "claimed for {'name': 'mnist'" in refused
