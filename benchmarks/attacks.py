"""Ours against the reference libraries, paired in one run: `python -m benchmarks.attacks` writes attacks.json here."""

import json
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack
from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
    ProjectedGradientDescentPyTorch,
)
from foolbox.attacks import LinfProjectedGradientDescentAttack
from torch import nn

from aisec_lab.attacks import APGD, PGD, Attack, Linf, Square, TargetedAPGD
from aisec_lab.data import Dataset, Prepared, Splits, prepare
from aisec_lab.defenses import AdversarialTraining, Standard
from aisec_lab.models import CNN, Fit
from tests.parity.peers import Peer, of_art, of_foolbox, of_torchattacks

OUT = Path(__file__).with_suffix(".json")
ROWS = 200
BALL = Linf(0.15)  # of the lab's default study
STEPS, CLIMB, PROPOSALS = 40, 100, 300
OBJECTIVES = {
    "undefended": Standard(),
    "adversarially trained": AdversarialTraining(PGD(BALL, steps=7, step_size=0.25, early_stop=False)),
}
LIBRARIES = ("torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox")


class Case(NamedTuple):
    """An attack of ours, the same of each peer, and how often each pair is run."""

    ours: Attack
    theirs: dict[str, Peer]
    repeats: int


QUIET = {"verbose": False}
CASES = {
    "PGD-40": Case(
        PGD(BALL, STEPS, step_size=0.1),
        {
            "torchattacks": of_torchattacks("PGD", BALL, alpha=0.1 * BALL.eps, steps=STEPS),
            "ART": of_art(
                ProjectedGradientDescentPyTorch,
                BALL,
                eps_step=0.1 * BALL.eps,
                max_iter=STEPS,
                num_random_init=1,
                **QUIET,
            ),
            "foolbox": of_foolbox(LinfProjectedGradientDescentAttack(rel_stepsize=0.1, steps=STEPS), BALL),
        },
        repeats=15,
    ),
    "APGD-CE": Case(
        APGD(BALL, CLIMB),
        {
            "torchattacks": of_torchattacks("APGD", BALL, steps=CLIMB),
            "ART": of_art(
                AutoProjectedGradientDescent, BALL, eps_step=2 * BALL.eps, max_iter=CLIMB, nb_random_init=1, **QUIET
            ),
        },
        repeats=5,
    ),
    "APGD-T": Case(TargetedAPGD(BALL, CLIMB), {"torchattacks": of_torchattacks("APGDT", BALL, steps=CLIMB)}, repeats=3),
    "Square": Case(
        Square(BALL, PROPOSALS + 2),
        {
            "torchattacks": of_torchattacks("Square", BALL, n_queries=PROPOSALS),
            "ART": of_art(SquareAttack, BALL, max_iter=PROPOSALS, **QUIET),
        },
        repeats=3,
    ),
}


def trained(splits: Splits, objective: Standard | AdversarialTraining) -> nn.Module:
    """The network of the default study, in half of its epochs."""
    generator = torch.Generator().manual_seed(0)
    model = CNN()(splits.train.shape, len(splits.train.classes), generator=generator)
    Fit(epochs=10)(model, splits.train, objective, generator=generator)
    return model


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


def main() -> None:
    """Train, attack, print a line for each pair as it comes, and write all of them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        prepare("digits", root)
        splits = Prepared("digits", test_size=ROWS)(root)
    rows = []
    for name, objective in OBJECTIVES.items():
        model = trained(splits, objective)
        clean = right(model, splits.test.x, splits.test.y) / ROWS
        print(f"\n{name}, clean accuracy {clean:.3f}, {BALL}")
        print(f"{'attack':8} {'peer':13} {'ours / theirs':22} {'seconds':14} {'robust accuracy':16} strength")
        for attack, case in CASES.items():
            for peer, theirs in case.theirs.items():
                row = paired(case, theirs, model, splits.test)
                print(
                    f"{attack:8} {peer:13} {row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})".ljust(
                        46
                    )
                    + f"{row['ours_seconds']:.2f} / {row['theirs_seconds']:.2f}".ljust(15)
                    + f"{row['ours_robust_accuracy']:.3f} / {row['theirs_robust_accuracy']:.3f}".ljust(17)
                    + f"{row['strength']} ({row['rows_more']:+.1f} ± {row['rows_more_standard_error']:.1f} rows)",
                    flush=True,
                )
                rows.append({"model": name, "clean_accuracy": clean, "attack": attack, "peer": peer} | row)
    setting = {
        "data": f"digits, {ROWS} test rows",
        "ball": str(BALL),
        "threads": torch.get_num_threads(),
        "clock": "CPU seconds of the process",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": {"python": platform.python_version()} | {library: version(library) for library in LIBRARIES},
    }
    OUT.write_text(json.dumps(setting | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
