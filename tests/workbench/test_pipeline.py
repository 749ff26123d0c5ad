"""The pipeline, run from end to end."""

import json
import re
import shutil
import socket
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from tests.clone import SMALL, Clone
from tests.reproducible import differing, digests

pytestmark = pytest.mark.xdist_group("study")

TRAINED, BY_APGD, BY_SQUARE = "train@standard-0", "evaluate@standard-none-apgd_ce-0", "evaluate@standard-none-square-0"
JUDGED = "diagnose@standard-none-0"
SYNTHESIS = {"collect", "robustness_vs_accuracy", "evasion", "poisoning", "privacy", "extraction", "report"}
OWN_DATA = {
    "side_data",
    "physical",
    "tables",
    "text",
    "control",
    "svm",
    "availability",
    "incident",
    "reconstruct",
    "steal",
}
CLOSER = {"smallest@standard", "black_box@standard", "certify", "svm_ours", *OWN_DATA}
POISONED = {"ingest", "poison@badnets-0", "cleanse@badnets-0", "partition", "matching", "poison_svm", "poison_svm_ours"}
PRIVATE = {"private@epsilon_3", "private@standard", "mechanism", "release", "memorise", "invert", "federated"}
PRIVATE |= {"private_keras", "private_peers"}
STOLEN = {"publish", "watch", "claim", "compress"}
WORST = "robustness, digits, cnn, standard, seed 0: robust_accuracy under worst_case at Linf 0.15"


def test_a_second_run_does_nothing(study: Clone) -> None:
    """Not even where a killed run has left a file that it was about to rename."""
    leftover = study.root / "results/train/standard-0/.history.parquet.1.part"
    leftover.touch()
    output = study.run("dvc", "repro")
    leftover.unlink()
    assert "Data and pipelines are up to date." in output
    assert "Running stage" not in output


def test_a_forced_second_run_gives_the_same_bytes(study: Clone) -> None:
    """Tables, models, notebooks, pages, figures, metrics and dvc.lock: `make reproducible` on a small study."""
    output = study.run("python", "-m", "tests.reproducible")
    stages = {"data", TRAINED, BY_APGD, BY_SQUARE, JUDGED, *CLOSER, *POISONED, *PRIVATE, *STOLEN, *SYNTHESIS}
    assert set(re.findall(r"Running stage '(.+)'", output)) == stages, "all of it was run again"
    assert re.search(r"^(\d+) of \1 files are the same to the last byte$", output, re.MULTILINE), output[-2000:]
    kinds = {Path(name).suffix for name in digests(study.root)}
    assert kinds == {".lock", ".npz", ".json", ".safetensors", ".parquet", ".ipynb", ".html", ".csv", ".png"}
    assert study.git("status", "--porcelain") == ""


def test_a_byte_that_differs_is_noticed(study: Clone) -> None:
    """Else the test above would show nothing."""
    before, table = digests(study.root), study.root / "results/table.parquet"
    content = table.read_bytes()
    table.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    changed = differing(before, digests(study.root))
    table.unlink()
    absent = differing(before, digests(study.root))
    table.write_bytes(content)
    assert changed == absent == ["results/table.parquet"]


def test_git_holds_the_metrics_and_one_figure_of_what_was_computed(study: Clone) -> None:
    """And DVC's cache holds everything but these."""
    small = [
        "results/availability/metrics.json",
        "results/black_box/standard/metrics.json",
        "results/certify/metrics.json",
        "results/claim/metrics.json",
        "results/cleanse/badnets-0/metrics.json",
        "results/compress/metrics.json",
        "results/control/metrics.json",
        "results/diagnose/standard-none-0/metrics.json",
        "results/evaluate/standard-none-apgd_ce-0/metrics.json",
        "results/evaluate/standard-none-square-0/metrics.json",
        "results/federated/metrics.json",
        "results/incident/metrics.json",
        "results/ingest/metrics.json",
        "results/invert/metrics.json",
        "results/matching/metrics.json",
        "results/mechanism/metrics.json",
        "results/memorise/metrics.json",
        "results/metrics.json",
        "results/partition/metrics.json",
        "results/physical/metrics.json",
        "results/poison/badnets-0/metrics.json",
        "results/poison_svm_ours/metrics.json",
        "results/private/epsilon_3/metrics.json",
        "results/private/standard/metrics.json",
        "results/private_peers/metrics.json",
        "results/publish/metrics.json",
        "results/reconstruct/metrics.json",
        "results/release/metrics.json",
        "results/robustness_vs_accuracy/pareto.png",
        "results/smallest/standard/metrics.json",
        "results/steal/metrics.json",
        "results/svm_ours/metrics.json",
        "results/tables/metrics.json",
        "results/text/metrics.json",
        "results/train/standard-0/metrics.json",
        "results/watch/metrics.json",
    ]
    assert study.git("ls-files", "data", "models", "results", "reports").splitlines() == small
    cached = {path.parent.name + path.name for path in (study.root / ".dvc/cache/files/md5").glob("*/*")}
    locked = re.findall(r"path: (\S+)\n\s+hash: md5\n\s+md5: (\S+)", (study.root / "dvc.lock").read_text())
    outputs = {path: md5 for path, md5 in locked if path.startswith(("models/", "results/")) and Path(path).suffix}
    assert set(small) < set(outputs)
    for path, md5 in outputs.items():
        assert (md5 in cached) == (path not in small), path


def test_no_file_says_where_when_or_by_whom_it_was_made(study: Clone) -> None:
    """Path, home, host, date, memory address: none is in what a reader is sent or what is compared by byte."""
    words = [str(study.root), sys.prefix, f"{Path.home()}/", f"{date.today():%Y-%m-%d}"]
    marks = [*map(re.escape, words), r" at 0x[0-9a-f]{6,}"]
    host = rf"(?<![\w+/]){re.escape(socket.gethostname())}(?![\w+/=])"  # may be short: not inside an image's base64
    for name in digests(study.root):
        binary = Path(name).suffix in (".npz", ".parquet", ".png", ".safetensors")
        content = (study.root / name).read_text("latin-1")
        assert not [mark for mark in [*marks, *([] if binary else [host])] if re.search(mark, content)], name


def test_dvc_shows_metrics_and_plots(study: Clone) -> None:
    """Every claim by its name, and a page with the curves and the notebooks' figures."""
    shown = json.loads(study.run("dvc", "metrics", "show", "--json"))
    (metrics,) = (found["data"] for found in shown[""]["data"].values())
    assert set(metrics["claims"][WORST]) == {"value", "low", "high"}
    study.run("dvc", "plots", "show")
    page = (study.root / "dvc_plots/index.html").read_text()
    for plot in ("Security curves", "pareto.png", "security_curves.png"):
        assert plot in page
    assert study.git("status", "--porcelain") == ""


def test_another_eps_runs_this_attack_and_what_reads_it(restored: Clone) -> None:
    """As an experiment: DVC recomposes params.yaml as `aisec compose` would, and its metrics can be compared."""
    overrides = (*SMALL, "attacks.square.ball.eps=0.2")
    settings = [word for override in overrides for word in ("-S", override)]
    output = restored.run("dvc", "exp", "run", *settings)
    assert set(re.findall(r"Running stage '(.+)'", output)) == {BY_SQUARE, JUDGED, *SYNTHESIS}
    recomposed = (restored.root / "params.yaml").read_text()
    restored.run("aisec", "compose", *overrides)
    assert (restored.root / "params.yaml").read_text() == recomposed
    difference = restored.run("dvc", "metrics", "diff")
    assert "under square at Linf 0.2.value" in difference
    assert "under apgd_ce" not in difference


def test_another_seed_trains_only_the_new_model(restored: Clone) -> None:
    """And attacks only that."""
    restored.run("aisec", "compose", *SMALL, "study.seeds=[0,1]")
    changed = json.loads(restored.run("dvc", "status", "--json"))
    new = {stage.replace("-0", "-1") for stage in (TRAINED, BY_APGD, BY_SQUARE, JUDGED)}
    assert set(changed) == new | SYNTHESIS - {
        "poisoning",
        "privacy",
        "extraction",
    }  # which wait for the table, and know no seed of this study


def test_a_broken_promise_ends_the_pipeline(study: Clone, tmp_path: Path) -> None:
    """A lower bound above its upper one is an error, and no page."""
    table = pd.read_parquet(study.root / "results/table.parquet")
    table.loc[(table.metric == "epsilon_lower") & (table.defense == "epsilon_3"), "value"] = 99.0
    table.to_parquet(tmp_path / "table.parquet", index=False)
    output = study.run(
        *("aisec", "run", "notebooks/privacy.ipynb", "scratch/privacy", "-p", f"table={tmp_path / 'table.parquet'}"),
        code=2,
    )
    assert "epsilon_3: lira shows epsilon >= 99" in output
    assert not (study.root / "scratch/privacy/privacy.html").exists()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "cells missing from results/evaluate: standard-none-square-0; run `dvc repro`"),
        ("stray", "does not declare: standard-none-square-7; rm -r results/evaluate/standard-none-square-7"),
        ("column", "square-0/rows.parquet lacks the columns ['size']: run its cell again"),
    ],
)
def test_collect_refuses_a_grid_that_is_not_the_declared_one(study: Clone, case: str, message: str) -> None:
    """One line, exit code 2, and the table of before."""
    folder = study.root / "results/evaluate"
    cell, other = folder / "standard-none-square-0", folder / "standard-none-square-7"
    kept = study.root / "scratch/cell"
    shutil.copytree(cell, kept)
    if case == "missing":
        shutil.rmtree(cell)
    elif case == "stray":
        shutil.copytree(cell, other)
    else:
        pd.read_parquet(cell / "rows.parquet").drop(columns="size").to_parquet(cell / "rows.parquet")
    before = digests(study.root)
    output = study.run("aisec", "collect", code=2)
    after = digests(study.root)
    shutil.rmtree(other, ignore_errors=True)
    shutil.rmtree(cell, ignore_errors=True)
    shutil.move(kept, cell)
    assert message in output
    assert len(output.splitlines()) == 1
    assert after == before


def test_check_says_which_claims_are_reproduced(restored: Clone) -> None:
    """All of them at first; then a claim that was touched is named, and a claim about other data is refused."""
    output = restored.run("aisec", "check")
    assert re.search(r"^(\d+) of \1 claims reproduced$", output, re.MULTILINE)
    path = restored.root / "results/metrics.json"
    found = path.read_text()

    def claim(change: dict[str, object]) -> None:
        path.write_text(json.dumps(json.loads(found) | change))
        restored.commit("a claim")
        path.write_text(found)

    claims = json.loads(found)["claims"]
    claim({"claims": claims | {WORST: claims[WORST] | {"value": 0.5}}})
    lost = [line for line in restored.run("aisec", "check", code=1).splitlines() if line.startswith("NOT reproduced")]
    claim({"data": {"name": "mnist", "sha256": "0"}})
    refused = restored.run("aisec", "check", code=2)
    restored.git("reset", "-q", "HEAD~2")
    assert len(lost) == 1
    assert f"{WORST}: claimed 0.5000" in lost[0]
    assert "claimed for {'name': 'mnist'" in refused
