"""Published robust models under the lab's quick suite: `AISEC_MIRROR=… python -m benchmarks.published mnist_0_1`.

A published bound is a test that nobody here could tune: no attack may leave fewer images standing than a certificate
promises, and ours should leave no more than the published attack did. A budget takes a quarter of an hour on one core.
"""

import json
import os
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from aisec_lab.attacks import Linf, QuickAutoAttack
from aisec_lab.data import Dataset, Prepared, prepare
from aisec_lab.evaluation import attacked, classes_of, clopper_pearson
from aisec_lab.files import write_json
from benchmarks.zoo import MODELS, load

OUT = Path("benchmarks/published.json")


def measured(model: nn.Module, test: Dataset, eps: float) -> dict[str, Any]:
    """Errors on clean and on attacked images, with a 95 % interval, and what the search cost."""
    clean = classes_of(model, test.x, len(test.classes)) != test.y
    x_adv, passes = attacked(QuickAutoAttack(Linf(eps)), model, test, seed=0)
    wrong = classes_of(model, x_adv, len(test.classes)) != test.y
    low, high = clopper_pearson(int(wrong.sum()), len(test))
    return {
        "images": len(test),
        "eps": eps,
        "clean_error": clean.double().mean().item(),
        "robust_error": wrong.double().mean().item(),
        "robust_error_low": low,
        "robust_error_high": high,
        "forward_passes": passes.forward_passes / len(test),
    }


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(sorted(MODELS)))
@click.option("--rows", type=int, default=None, help="the first so many test images; all by default")
def main(name: str, rows: int | None) -> None:
    torch.set_num_threads(1)
    published = MODELS[name]
    model = load(published, Path(os.environ["AISEC_MIRROR"]))
    prepare(published.data)
    test = Prepared(published.data)().test
    test = test.subset(torch.arange(len(test) if rows is None else rows))
    for eps in published.budgets:
        found = measured(model, test, eps)
        click.echo(json.dumps(found, indent=2))
        if rows is None:
            known = json.loads(OUT.read_text()) if OUT.exists() else {}
            write_json(OUT, known | {f"{name} at {eps:.4g}": found})


if __name__ == "__main__":
    main()
