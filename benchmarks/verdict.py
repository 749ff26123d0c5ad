"""The verdict on defenses that mislead and on models that hide nothing: `AISEC_MIRROR=… python -m benchmarks.verdict`.

Every planted defense has to be found out for what it is, and hardly an honest model may be blamed. Limits were fixed on
digits. Fashion-MNIST has the same limits, but its eps and some of its models were changed after a first look; at MNIST
nothing was. Takes half an hour on one core; without a mirror it tries digits alone.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from aisec_lab.core.files import write_json
from aisec_lab.evaluation.diagnostics import CHECKS, diagnose
from aisec_lab.models import logits_of
from aisec_lab.models import seeded as bound
from benchmarks.honest_models import HONEST
from benchmarks.planted_defenses import PLANTED, Scene, scene, seeded

OUT = Path(__file__).with_suffix(".json")
PARAMS = Path(__file__).parents[1] / "params.yaml"  # the attacks and the number of rows are those of the default study
DATASETS = ("digits", "fashion_mnist", "mnist")
LEARNED = 0.5  # clean accuracy below which a training has failed: such a model is listed, and counts on neither side
SEED = 0


def tried(
    scene: Scene, model: nn.Module, undefended: nn.Module, white: Sequence[Any], study: Any, **more: Any
) -> dict[str, Any]:
    """The verdict on one model, as a record; its surrogates are itself without its defense, and an undefended one."""
    sample = scene.splits.test.sample(study.rows, seed=SEED)
    free = replace(instantiate(study.free), ball=scene.ball, goal=more["goal"])
    surrogates = [other for other in dict.fromkeys((undefended, scene.plain)) if other is not model]
    found = diagnose(
        model, sample.x, sample.y, white_box=white, black_box=free, surrogates=surrogates, seed=SEED, **more
    )
    return {
        "trusted": found.trusted,
        "raised": list(found.raised),
        "rows": found.n,
        "measured": {finding.name: finding.measured for finding in found.findings},
    }


def records_of(name: str, scene: Scene, study: Any) -> Iterator[dict[str, Any]]:
    """All planted defenses and all honest models on a dataset."""
    white = [replace(attack, ball=scene.ball) for attack in instantiate(study.white, _convert_="all")]
    for title, planted in PLANTED.items():
        model = planted.make(scene)
        record = tried(scene, model, scene.plain, white[: planted.attacks], study, goal=planted.goal)
        yield {"dataset": name, "kind": "planted", "name": title, "expected": planted.finding} | record
    for honest in HONEST[name]:
        model = honest.make(scene)
        test = scene.splits.test
        with bound(model, seeded(SEED)):
            accuracy = (logits_of(model, test.x).argmax(1) == test.y).double().mean().item()
        surface = None if honest.view is None else honest.view(model)
        undefended = model if honest.defense is None else honest.undefended(scene)
        record = tried(scene, model, undefended, honest.white(white), study, goal=honest.goal, attacked_model=surface)
        kind = "honest" if accuracy >= LEARNED else "failed training"
        yield {"dataset": name, "kind": kind, "name": honest.name, "clean_accuracy": accuracy} | record


def line(record: dict[str, Any]) -> str:
    """A record in one line."""
    said = "trusted" if record["trusted"] else "NOT trusted: " + ", ".join(record["raised"])
    wanted = f" (expected {record['expected']})" if "expected" in record else ""
    return f"{record['dataset']}, {record['kind']}, {record['name']}: {said}{wanted}"


def summary(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Of each dataset: how many were planted and found out for the right reason, how many honest and blamed."""
    counts = {}
    for name in DATASETS:
        planted, honest = (
            [record for record in records if (record["dataset"], record["kind"]) == (name, kind)]
            for kind in ("planted", "honest")
        )
        counts[name] = {
            "planted": len(planted),
            "found_out": sum(record["expected"] in record["raised"] for record in planted),
            "honest": len(honest),
            "blamed": sum(not record["trusted"] for record in honest),
        }
    return counts


@click.command(help=__doc__)
@click.option("--root", type=click.Path(path_type=Path), default=Path("data"), help="the folder of prepared data")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
@click.option("--data", "only", type=click.Choice(DATASETS), help="this one alone; the records of the others stay")
def main(root: Path, out: Path, only: str | None) -> None:
    """Try all, print a line for each, write the records."""
    torch.set_num_threads(1)
    study = OmegaConf.load(PARAMS).diagnose
    tried_now = (only,) if only else DATASETS if "AISEC_MIRROR" in os.environ else DATASETS[:1]
    kept = json.loads(out.read_text())["records"] if only and out.exists() else []
    records = [record for record in kept if record["dataset"] not in tried_now]
    for name in tried_now:
        for record in records_of(name, scene(name, root), study):
            records.append(record)
            click.echo(f"{line(record)} [{time.process_time():.0f} s]")
    limits = {name: page.limit for name, page in CHECKS.items()}
    write_json(out, {"limits": limits, "summary": summary(records), "records": records})
    click.echo(summary(records))


if __name__ == "__main__":
    main()
