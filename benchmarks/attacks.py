"""Ours against the reference libraries, paired in one run: `python -m benchmarks.attacks` writes attacks.json here."""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack
from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
    ProjectedGradientDescentPyTorch,
)
from foolbox.attacks import LinfProjectedGradientDescentAttack
from torch import nn

from aisec_lab.attacks import APGD, PGD, Attack, Ball, Linf, LowPrecision, Square, TargetedAPGD
from aisec_lab.data import Dataset, Prepared, Splits, prepare
from aisec_lab.defenses import AdversarialTraining, Standard, WarmStart
from aisec_lab.models import CNN, Fit, TrainingRecipe
from benchmarks.peers import Peer, of_art, of_foolbox, of_torchattacks

OUT = Path(__file__).with_suffix(".json")
STEPS, CLIMB, PROPOSALS = 40, 100, 300
LIBRARIES = ("torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox")
PGD_40 = ("PGD-40", "PGD-40, bfloat16")


class Scene(NamedTuple):
    """Data and the threat on it, what its models are trained with, and the attacks that are timed."""

    data: str
    ball: Ball
    rows: int
    train_size: int | None
    fit: Fit
    adversarially: Callable[[PGD], TrainingRecipe | AdversarialTraining]
    attacks: tuple[str, ...]
    repeats: int  # of PGD-40


class Case(NamedTuple):
    """An attack of ours, the same of each peer, and how often each pair is run."""

    ours: Attack
    theirs: dict[str, Peer]
    repeats: int


SCENES = {
    "digits": Scene(
        "digits",
        Linf(0.15),
        200,
        None,
        Fit(epochs=10),
        AdversarialTraining,
        (*PGD_40, "APGD-CE", "APGD-T", "Square"),
        repeats=15,
    ),
    "fashion_mnist": Scene(
        "fashion_mnist",
        Linf(0.1),
        250,
        10_000,
        Fit(epochs=3),
        lambda attack: WarmStart(AdversarialTraining(attack), epochs=2),
        PGD_40,
        repeats=5,
    ),
}
QUIET = {"verbose": False}


def cases(ball: Ball, repeats: int) -> dict[str, Case]:
    """Ours and theirs over one ball, with the same steps, step sizes, restarts and targets; PGD-40 so many times."""
    pgd = partial(PGD, steps=STEPS, step_size=0.1)
    pgd_of_others = {
        "torchattacks": of_torchattacks("PGD", ball, alpha=0.1 * ball.eps, steps=STEPS),
        "ART": of_art(
            ProjectedGradientDescentPyTorch, ball, eps_step=0.1 * ball.eps, max_iter=STEPS, num_random_init=1, **QUIET
        ),
        "foolbox": of_foolbox(LinfProjectedGradientDescentAttack(rel_stepsize=0.1, steps=STEPS), ball),
    }
    return {
        "PGD-40": Case(pgd(ball), pgd_of_others, repeats),
        "PGD-40, bfloat16": Case(LowPrecision(ball, pgd), pgd_of_others, repeats),
        "APGD-CE": Case(
            APGD(ball, CLIMB),
            {
                "torchattacks": of_torchattacks("APGD", ball, steps=CLIMB),
                "ART": of_art(
                    AutoProjectedGradientDescent, ball, eps_step=2 * ball.eps, max_iter=CLIMB, nb_random_init=1, **QUIET
                ),
            },
            repeats=5,
        ),
        "APGD-T": Case(
            TargetedAPGD(ball, CLIMB), {"torchattacks": of_torchattacks("APGDT", ball, steps=CLIMB)}, repeats=3
        ),
        "Square": Case(
            Square(ball, PROPOSALS + 2),
            {
                "torchattacks": of_torchattacks("Square", ball, n_queries=PROPOSALS),
                "ART": of_art(SquareAttack, ball, max_iter=PROPOSALS, **QUIET),
            },
            repeats=3,
        ),
    }


def models(scene: Scene, splits: Splits) -> dict[str, nn.Module]:
    """The network of the default study, undefended and adversarially trained."""
    attack = PGD(scene.ball, steps=7, step_size=0.25, early_stop=False)
    objectives = {"undefended": Standard(), "adversarially trained": scene.adversarially(attack)}
    found: dict[str, nn.Module] = {}
    for name, objective in objectives.items():
        generator = torch.Generator().manual_seed(0)
        found[name] = CNN()(splits.train.shape, len(splits.train.classes), generator=generator)
        scene.fit(found[name], splits.train, objective, generator=generator)
    return found


def right(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    """How many rows the model gets right."""
    with torch.no_grad():
        return int((model(x).argmax(1) == y).sum())


def timed(attack: Peer, model: nn.Module, sample: Dataset, seed: int) -> tuple[float, int]:
    """CPU seconds of one run, and the rows that are still right after it."""
    begin = time.process_time()
    x_adv = attack(model, sample.x, sample.y, seed)
    return time.process_time() - begin, right(model, x_adv, sample.y)


def paired(case: Case, theirs: Peer, model: nn.Module, sample: Dataset) -> dict[str, Any]:
    """Ours and theirs in turn, each first every other time, after one run of each that does not count."""

    def ours(model: nn.Module, x: torch.Tensor, y: torch.Tensor, seed: int) -> torch.Tensor:
        return case.ours(model, x, y, generator=torch.Generator().manual_seed(seed))

    few = Dataset(sample.x[:20], sample.y[:20], sample.classes, sample.name)
    timed(ours, model, few, 0), timed(theirs, model, few, 0)
    runs = []
    for seed in range(case.repeats):
        if seed % 2:
            a = timed(ours, model, sample, seed)
            b = timed(theirs, model, sample, seed)
        else:
            b = timed(theirs, model, sample, seed)
            a = timed(ours, model, sample, seed)
        runs.append((a, b))
    ratios = [a[0] / b[0] for a, b in runs]
    ours_left, theirs_left = (statistics.mean(run[side][1] for run in runs) for side in (0, 1))
    more = [a[1] - b[1] for a, b in runs]
    return {
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "ours_seconds": statistics.median(a[0] for a, _ in runs),
        "theirs_seconds": statistics.median(b[0] for _, b in runs),
        "ours_robust_accuracy": ours_left / len(sample),
        "theirs_robust_accuracy": theirs_left / len(sample),
        "strength": strength(statistics.mean(more)),
        "rows_more": statistics.mean(more),
        "rows_more_standard_error": statistics.stdev(more) / len(more) ** 0.5,
        "repeats": case.repeats,
    }


def strength(rows_more: float) -> str:
    """Equal where ours leaves, on average, at most one row more or less standing than theirs."""
    return "equal" if abs(rows_more) <= 1 else "ours weaker" if rows_more > 0 else "ours stronger"


def rows_of(scene: Scene) -> Iterator[dict[str, Any]]:
    """Train, attack, print a line for each pair as it comes, and give it."""
    with tempfile.TemporaryDirectory() as root:
        prepare(scene.data, root)
        splits = Prepared(scene.data, scene.train_size, test_size=scene.rows)(root)
    for name, model in models(scene, splits).items():
        clean = right(model, splits.test.x, splits.test.y) / scene.rows
        print(f"\n{scene.data}, {name}, clean accuracy {clean:.3f}, {scene.ball}")
        print(f"{'attack':16} {'peer':13} {'ours / theirs':18} {'seconds':14} {'robust accuracy':16} strength")
        for attack, case in cases(scene.ball, scene.repeats).items():
            for peer, theirs in case.theirs.items() if attack in scene.attacks else ():
                row = paired(case, theirs, model, splits.test)
                print(
                    f"{attack:16} {peer:13} {row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})".ljust(
                        50
                    )
                    + f"{row['ours_seconds']:.2f} / {row['theirs_seconds']:.2f}".ljust(15)
                    + f"{row['ours_robust_accuracy']:.3f} / {row['theirs_robust_accuracy']:.3f}".ljust(17)
                    + f"{row['strength']} ({row['rows_more']:+.1f} ± {row['rows_more_standard_error']:.1f} rows)",
                    flush=True,
                )
                setting = {"data": scene.data, "rows": scene.rows, "ball": str(scene.ball)}
                yield setting | {"model": name, "clean_accuracy": clean, "attack": attack, "peer": peer} | row


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(sorted(SCENES)))
def main(names: tuple[str, ...]) -> None:
    """Those scenes, or all whose data are at hand: digits always, the other from a mirror; rows of others are kept."""
    torch.set_num_threads(1)
    names = names or tuple(SCENES if "AISEC_MIRROR" in os.environ else ["digits"])
    found = json.loads(OUT.read_text()) if OUT.exists() else {"rows": []}
    kept = [row for row in found["rows"] if row["data"] not in names]
    rows = [row for name in names for row in rows_of(SCENES[name])]
    setting = {
        "threads": torch.get_num_threads(),
        "clock": "CPU seconds of the process",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": {"python": platform.python_version()} | {library: version(library) for library in LIBRARIES},
    }
    OUT.write_text(json.dumps(setting | {"rows": kept + rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
