"""Published robust models under the lab's quick suite: `AISEC_MIRROR=… python -m benchmarks.published mnist_0_1`.

A published bound is a test that nobody here could tune: no attack may leave fewer images standing than a certificate
promises, and ours should leave no more than the published attack did. A budget takes a quarter of an hour on one core.

With `--restarts 1 --restarts 5` the authors' own AutoAttack (github.com/fra31/auto-attack) runs its first two stages
beside ours, with as many restarts of each, on three seeds. Its code is fetched into a temporary folder, or taken from
the clone that AISEC_AUTOATTACK names.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from aisec_lab.attacks import AutoAttack, Linf, SequentialEnsemble
from aisec_lab.core import clopper_pearson
from aisec_lab.core.files import write_json
from aisec_lab.data import Dataset, Prepared, prepare
from aisec_lab.evaluation import predicted_classes, run_attack
from benchmarks.zoo import MODELS, load

OUT = Path("benchmarks/published.json")
REFERENCE = "https://github.com/fra31/auto-attack"
COMMIT = "a39220048b3c9f2cca9a4d3a54604793c68eca7e"
SEEDS = 3
ENOUGH = 50  # images for a comparison that is written down, beside their number


def measured(model: nn.Module, test: Dataset, eps: float) -> dict[str, Any]:
    """Errors on clean and on attacked images, with a 95 % interval, and what the search cost."""
    clean = predicted_classes(model, test.x, len(test.classes)) != test.y
    x_adv, passes = run_attack(AutoAttack(Linf(eps), "quick"), model, test, seed=0)
    wrong = predicted_classes(model, x_adv, len(test.classes)) != test.y
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


def reference(folder: Path) -> Callable[..., Any]:
    """The authors' `AutoAttack`, from the clone that AISEC_AUTOATTACK names or from one in `folder`, at `COMMIT`."""
    clone = Path(os.environ.get("AISEC_AUTOATTACK", folder / "auto-attack"))
    if not clone.exists():
        subprocess.run(["git", "clone", "--quiet", REFERENCE, clone], check=True)
        subprocess.run(["git", "-C", clone, "checkout", "--quiet", COMMIT], check=True)
    sys.path.insert(0, str(clone))
    attack: Callable[..., Any] = import_module("autoattack").AutoAttack
    return attack


def ours(model: nn.Module, test: Dataset, eps: float, restarts: int, seed: int) -> Tensor:
    """The quick suite, each stage as often as there are restarts, on the rows that are left standing."""
    stages = AutoAttack(Linf(eps), "quick").stages(len(test.classes))
    again = {f"{name} {number}": stage for name, stage in stages.items() for number in range(restarts)}
    return run_attack(SequentialEnsemble(again), model, test, seed=seed)[0]


def theirs(make: Callable[..., Any], model: nn.Module, test: Dataset, eps: float, restarts: int, seed: int) -> Tensor:
    """The reference's same two stages, 100 steps and 9 targets each."""
    attack = make(model, "Linf", eps, seed, False, ["apgd-ce", "apgd-t"], "custom", device="cpu")
    attack.apgd.n_restarts = attack.apgd_targeted.n_restarts = restarts
    x_adv: Tensor = attack.run_standard_evaluation(test.x, test.y)
    return x_adv


def compared(
    make: Callable[..., Any], model: nn.Module, test: Dataset, eps: float, restarts: int
) -> dict[str, dict[str, Any]]:
    """Errors of ours and of the reference, seed by seed, and the CPU seconds of a run; ValueError outside the ball."""
    found: dict[str, dict[str, Any]] = {}
    searches = {"ours": ours, "reference": lambda *args: theirs(make, *args)}
    for name, search in searches.items():
        errors, begin = [], time.process_time()
        for seed in range(SEEDS):
            x_adv = search(model, test, eps, restarts, seed)
            if (x_adv - test.x).abs().max() > eps * (1 + 1e-4) or x_adv.min() < 0 or x_adv.max() > 1:
                raise ValueError(f"{name} left the ball or the box at seed {seed}: its errors would count for nothing")
            errors.append((predicted_classes(model, x_adv, len(test.classes)) != test.y).double().mean().item())
        seconds = (time.process_time() - begin) / SEEDS
        found[name] = {"images": len(test), "robust_error": errors, "cpu_seconds": seconds}
    return found


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(sorted(MODELS)))
@click.option("--rows", type=int, default=None, help="the first so many test images; all by default")
@click.option("--restarts", type=int, multiple=True, help="compare with the reference at so many, and nothing else")
def main(name: str, rows: int | None, restarts: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    published = MODELS[name]
    model = load(published, Path(os.environ["AISEC_MIRROR"]))
    prepare(published.data)
    test = Prepared(published.data)().test
    test = test.subset(torch.arange(len(test) if rows is None else rows))
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        make = reference(Path(folder)) if restarts else None
        for eps in published.budgets:
            place = f"{name} at {eps:.4g}"
            if make is None:
                known[place] = known.get(place, {}) | (found := measured(model, test, eps))
            else:
                found = {f"{number}": compared(make, model, test, eps, number) for number in restarts}
                beside = known.setdefault(place, {})
                beside["same_restarts"] = beside.get("same_restarts", {}) | found
            click.echo(json.dumps(found, indent=2))
            if rows is None or (restarts and rows >= ENOUGH):
                write_json(OUT, known)


if __name__ == "__main__":
    main()
