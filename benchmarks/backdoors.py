"""Backdoors as published: `python -m benchmarks.backdoors`, and with `AISEC_MIRROR=…` on Fashion-MNIST too.

Each attack on three paired seeds: a clean and a poisoned model begin with the same weights and see their rows in one
order. The rows of a data set are written once it is done, in place of those that the file has of it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import pandas as pd
import torch

from aisec_lab.attacks import PGD, Backdoor, Blended, Checkerboard, CleanLabel, Linf, Poisoning, Sinusoid, Warp
from aisec_lab.core.files import written_beside
from aisec_lab.data import Dataset, Prepared, prepare
from aisec_lab.defenses import Standard
from aisec_lab.evaluation import predicted_classes, success_rate
from aisec_lab.models import CNN, Fit
from benchmarks.fifty_points import paired_difference

SEEDS = (0, 1, 2)
TARGET = 0
OUT = Path(__file__).with_suffix(".csv")


PAPERS = {  # what the authors report, where it is at hand
    "badnets": "Gu et al. 2017, section 4.2: MNIST, 10 %, over 99.9 %",
    "blended": "Chen et al. 2017, abstract: faces, some 50 rows, over 90 %",
    "sinusoid": "Barni et al. 2019: no figure at hand",
    "warp": "Nguyen & Tran 2021, table 1: MNIST, 10 %, with noise mode, 99.9 %",
    "clean_label": "Turner et al. 2019: no figure at hand",
}


class Setting(NamedTuple):
    """What the models of a data set are given, and the attacks on them."""

    train_size: int | None
    fit: Fit
    attacks: Mapping[str, Poisoning]


def hard(eps: float) -> PGD:
    """What makes a row hard for the clean-label attack."""
    return PGD(Linf(eps), steps=40, early_stop=False)


SETTINGS = {
    "digits": Setting(
        None,
        Fit(epochs=20),
        {
            "badnets": Backdoor(Checkerboard(2), TARGET, 0.05),
            "blended": Backdoor(Blended(0.3), TARGET, 0.05),
            "sinusoid": CleanLabel(Sinusoid(0.7, 4.5), TARGET, 0.08),
            "warp": Backdoor(Warp(strength=0.5), TARGET, 0.1),
            "clean_label": CleanLabel(Checkerboard(3), TARGET, 0.08, hard(0.4)),
        },
    ),
    "fashion_mnist": Setting(
        20_000,
        Fit(epochs=6),
        {
            "badnets": Backdoor(Checkerboard(3), TARGET, 0.01),
            "blended": Backdoor(Blended(0.2), TARGET, 0.05),
            "sinusoid": CleanLabel(Sinusoid(0.2), TARGET, 0.05),
            "warp": Backdoor(Warp(strength=1.0), TARGET, 0.1),
            "clean_label": CleanLabel(Checkerboard(3), TARGET, 0.05, hard(0.1)),
        },
    ),
}


def rows_of(data: str, train: Dataset, test: Dataset, setting: Setting) -> Iterator[dict[str, Any]]:
    """Train a clean model and one for each attack, seed by seed: one record a poisoned model."""
    k = len(train.classes)
    for seed in SEEDS:
        clean = trained(train, setting.fit, seed)
        right = predicted_classes(clean, test.x, k) == test.y
        for name, attack in setting.attacks.items():
            poisoned = attack(train, surrogate=clean, generator=torch.Generator().manual_seed(seed))
            assert poisoned.trigger is not None
            model = trained(poisoned.dataset, setting.fit, seed)
            still = predicted_classes(model, test.x, k) == test.y
            change, low, high = paired_difference(still, right)
            opened, chance = (success_rate(each, poisoned.trigger, TARGET, test) for each in (model, clean))
            yield {
                "data": data,
                "attack": name,
                "seed": seed,
                "poisoned": int(poisoned.poison_mask.sum()),
                "rate": poisoned.poison_mask.double().mean().item(),
                "asr": opened["value"],
                "asr_low": opened["low"],
                "asr_high": opened["high"],
                "asr_n": opened["n"],
                "clean_model_asr": chance["value"],
                "clean_accuracy": still.double().mean().item(),
                "clean_change": change,
                "clean_change_low": low,
                "clean_change_high": high,
                "settings": repr(attack),
                "paper": PAPERS[name],
            }


def trained(dataset: Dataset, fit: Fit, seed: int) -> torch.nn.Module:
    """The default study's network after a training whose randomness is fixed by the seed."""
    generator = torch.Generator().manual_seed(seed)
    model = CNN()(dataset.shape, len(dataset.classes), generator=generator)
    fit(model, dataset, Standard(), generator=generator)
    return model


@click.command(help=__doc__)
@click.option("--data", type=click.Choice(list(SETTINGS)), multiple=True, default=list(SETTINGS), show_default=True)
@click.option("--root", type=click.Path(path_type=Path), default=Path("data"), help="the folder of prepared data")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(data: tuple[str, ...], root: Path, out: Path) -> None:
    """Measure each data set, write its rows, print a line for each attack."""
    torch.set_num_threads(1)
    for name in data:
        if not (root / name / "card.json").exists():
            prepare(name, root)
        splits, records = Prepared(name, SETTINGS[name].train_size)(root), []
        for record in rows_of(name, splits.train, splits.test, SETTINGS[name]):
            records.append(record)
            click.echo(
                f"{name}, {record['attack']}, seed {record['seed']}: {record['asr']:.1%} of marked rows, a clean model "
                f"{record['clean_model_asr']:.1%}; clean accuracy {100 * record['clean_change']:+.1f} points"
            )
        known = [pd.read_csv(out).query("data != @name")] if out.exists() else []
        with written_beside(out) as beside:
            pd.concat([*known, pd.DataFrame(records)]).to_csv(beside, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
