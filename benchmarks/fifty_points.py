"""Adversarial training makes a model up to 50 points more robust: is it so? `python -m benchmarks.fifty_points`.

Digits ship with the lab, the other two data sets come from a mirror. It takes some twenty minutes of one core;
the rows of a data set are written once it is done, in place of those that the file has of it.
"""

import time
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import click
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor

from aisec_lab.attacks import PGD, AutoAttack, Ball, Linf
from aisec_lab.core import clopper_pearson
from aisec_lab.core.files import written_beside
from aisec_lab.data import Prepared, Splits, prepare
from aisec_lab.defenses import AdversarialTraining, Standard, WarmStart
from aisec_lab.evaluation import predicted_classes, run_attack
from aisec_lab.models import CNN, Fit, Objective, TrainingRecipe

CLAIM, SEED = 0.5, 0
STEPS, TARGETS = 100, 9  # of the quick suite that judges


class Budget(NamedTuple):
    """The threat on a data set, and what each of its models is given."""

    ball: Ball
    train_size: int | None  # training images; None for all
    warm: int  # epochs of standard training before those of `fit`, for both models alike (`WarmStart`)
    fit: Fit
    attacked: int  # test images under attack; the clean accuracy is over all of them


BUDGETS = {
    "digits": Budget(Linf(0.15), None, 0, Fit(epochs=20), attacked=500),  # as in the default study
    "fashion_mnist": Budget(Linf(0.1), 20_000, 1, Fit(epochs=4), attacked=1000),
    # settings chosen on every fifth track of the training set; without the warm start one answer for all is learned
    "gtsrb": Budget(Linf(8 / 255), None, 3, Fit(epochs=8, learning_rate=0.01, weight_decay=0.1), attacked=1000),
}


def objectives(budget: Budget) -> dict[str, Objective | TrainingRecipe]:
    """What is compared, with the settings of the default study; the second is measured against the first."""
    attack = PGD(budget.ball, steps=7, step_size=0.25, early_stop=False)
    compared: dict[str, Objective] = {"standard": Standard(), "adversarial_training": AdversarialTraining(attack)}
    return {name: WarmStart(each, budget.warm) if budget.warm else each for name, each in compared.items()}


def rows_of(name: str, splits: Splits, budget: Budget) -> pd.DataFrame:
    """Train under each objective, ask for all test images, attack a sample of them: one record a model."""
    ball, train, test = budget.ball, splits.train, splits.test
    sample, classes = test.sample(budget.attacked, seed=SEED), len(test.classes)
    right: dict[str, tuple[Tensor, Tensor]] = {}  # by defense: which clean and which attacked images are answered right
    records: list[dict[str, Any]] = []
    for defense, objective in objectives(budget).items():
        model = CNN()(train.shape, classes, generator=_seeded())
        begin = time.process_time()
        history = budget.fit(model, train, objective, generator=_seeded())
        seconds = time.process_time() - begin
        x_adv, _ = run_attack(AutoAttack(ball, "quick", STEPS, TARGETS), model, sample, seed=SEED)
        clean, robust = (
            predicted_classes(model, test.x, classes) == test.y,
            predicted_classes(model, x_adv, classes) == sample.y,
        )
        right[defense] = clean, robust
        record = {"data": name, "defense": defense, "knob": ball.name, "level": ball.eps, "seed": SEED}
        record |= {
            "train_size": len(train),
            "epochs": budget.warm + budget.fit.epochs,
            **_rate("clean", clean),
            **_rate("robust", robust),
        }
        if records:
            plain_clean, plain_robust = right["standard"]
            record |= _change("robust", robust, plain_robust) | _change("clean", clean, plain_clean)
        record |= {
            passes: sum(epoch[passes] for epoch in history) / len(train)
            for passes in ("forward_passes", "backward_passes")
        }
        records.append(record | {"seconds": seconds})
        click.echo(f"{name}, {defense}: {record['clean_accuracy']:.1%} clean, {record['robust_accuracy']:.1%} robust")
    rows = pd.DataFrame(records)
    return rows.assign(time_ratio=rows.seconds / rows.seconds[0])


def _rate(name: str, right: Tensor) -> dict[str, float]:
    k, n = int(right.sum()), len(right)
    low, high = clopper_pearson(k, n)
    return {f"{name}_accuracy": k / n, f"{name}_low": low, f"{name}_high": high, f"{name}_n": n}


def _change(name: str, right: Tensor, before: Tensor) -> dict[str, float]:
    value, low, high = paired_difference(right, before)
    return {f"{name}_change": value, f"{name}_change_low": low, f"{name}_change_high": high}


def paired_difference(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    """How much more often the first is right on the same rows (Newcombe, 1998, Statistics in Medicine 17, method 10).

    Args:
        first, second: which answers are right (N,), bool.

    Returns:
        The difference of the two rates, and the ends of its 95 % interval.
    """
    n, k, m, both = len(first), int(first.sum()), int(second.sum()), int((first & second).sum())
    product = float(both * (n - k - m + both) - (k - both) * (m - both))  # ad - bc of the table of pairs
    product = max(product - n / 2, 0.0) if product > 0 else product  # the paper's correction for continuity
    spread = sqrt(k * (n - k) * m * (n - m))
    phi = product / spread if spread else 0.0

    def reach(u: float, v: float) -> float:
        return sqrt(u * u - 2 * phi * u * v + v * v)

    p, q = k / n, m / n
    of_p, of_q = (binomtest(successes, n).proportion_ci(0.95, method="wilson") for successes in (k, m))
    return p - q, p - q - reach(p - of_p.low, of_q.high - q), p - q + reach(of_p.high - p, q - of_q.low)


def verdict(row: pd.Series) -> str:
    """Gain and price of one model, and what its gain, with its interval, says of the claim."""
    gain, price = (
        "{:+.1f} points of {} accuracy [{:+.1f}, {:+.1f}]".format(
            100 * row[f"{name}_change"], name, *(100 * row[f"{name}_change_{end}"] for end in ("low", "high"))
        )
        for name in ("robust", "clean")
    )
    claim = "holds" if row.robust_change_low >= CLAIM else "fails" if row.robust_change_high < CLAIM else "stays open"
    return (
        f"{row.data}, {row.knob} {row.level:.3g}, {row.defense}: {gain}, {price}, {row.time_ratio:.1f} times the "
        f"training time; up to {100 * CLAIM:.0f} points more robust: {claim}"
    )


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


@click.command(help=__doc__)
@click.option("--data", type=click.Choice(list(BUDGETS)), multiple=True, default=list(BUDGETS), show_default=True)
@click.option("--root", type=click.Path(path_type=Path), default=Path("data"), help="the folder of prepared data")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/fifty_points.csv"), show_default=True)
def main(data: tuple[str, ...], root: Path, out: Path) -> None:
    """Measure each data set, write its rows, print the verdicts."""
    torch.set_num_threads(1)
    for name in data:
        if not (root / name / "card.json").exists():
            prepare(name, root)
        rows = rows_of(name, Prepared(name, BUDGETS[name].train_size)(root), BUDGETS[name])
        known = [pd.read_csv(out).query("data != @name")] if out.exists() else []
        table = pd.concat([*known, rows]).sort_values(
            "data", kind="stable", key=lambda column: column.map(list(BUDGETS).index)
        )
        with written_beside(out) as beside:
            table.to_csv(beside, index=False, float_format="%.6g")
        for _, row in rows[1:].iterrows():
            click.echo(verdict(row))


if __name__ == "__main__":
    main()
