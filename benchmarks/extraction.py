"""Stolen copies of a network for Fashion-MNIST: `AISEC_MIRROR=… python -m benchmarks.extraction`.

The victim has learned from one half of the training images; the thief owns the other half, or MNIST, without classes.
A theft that the file already has is not made again: remove the file to begin anew. It fails unless 5,000 answers make
copies that agree with the victim on at least 92 % of the 10,000 test images, and on 90 % where they are labels alone.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor, nn

from aisec_lab.attacks import PGD, Linf, Oracle
from aisec_lab.attacks.extraction.active import ActiveExtraction
from aisec_lab.attacks.extraction.augmentation import RandomShift
from aisec_lab.attacks.extraction.knockoff import Knockoff
from aisec_lab.attacks.extraction.result import Extraction
from aisec_lab.attacks.extraction.strategies import SmallestMargin
from aisec_lab.core.files import written_beside
from aisec_lab.data import Dataset, Prepared, Splits, prepare
from aisec_lab.data.dataset import stratified_split
from aisec_lab.defenses import Undefended
from aisec_lab.defenses.outputs.coarse import LabelsOnly, RoundedProbabilities, TopK
from aisec_lab.defenses.outputs.mad import MAD
from aisec_lab.defenses.outputs.misinformation import AdaptiveMisinformation
from aisec_lab.defenses.outputs.perturbed import OutputNoise, ReverseSigmoid, TemperatureScaling
from aisec_lab.defenses.training.augmentation import StrongAugmentation
from aisec_lab.evaluation.extraction import defense_prices, extraction_curves, fidelity, transfer
from aisec_lab.evaluation.table import rate
from aisec_lab.models import Fit, StridedCNN, load_checkpoint, logits_of, save_checkpoint

OUT = Path(__file__).with_suffix(".csv")
VICTIM, COPY = StridedCNN(width=32, hidden=128), StridedCNN()
TRANSFER = PGD(Linf(0.1), steps=20, early_stop=False)
TRANSFER_ROWS = 500  # of the test images
QUERIES, PRICE = (250, 1000, 5000), 1000
CLAIMS = {"active": 0.92, "active, labels only": 0.90}
DEFENSES: dict[str, Callable[..., nn.Module]] = {
    "none": Undefended(),
    "top 1": TopK(1),
    "one decimal": RoundedProbabilities(1),
    "label": LabelsOnly(),
    "temperature 4": TemperatureScaling(4.0),
    "reverse sigmoid": ReverseSigmoid(),
    "noise": OutputNoise(1.0),
    "MAD-argmax, eps 1": MAD(COPY, eps=1.0, argmax=True),
    "MAD, eps 0.5": MAD(COPY, eps=0.5),
    "misinformation": AdaptiveMisinformation(COPY, Fit(epochs=3), threshold=0.5),
}


class Theft(NamedTuple):
    """What is stolen from whom; the key of its rows."""

    attack: str
    queries: int
    defense: str = "none"
    seed: int = 0


THEFTS = [
    *(Theft(attack, n) for n in QUERIES for attack in ("random", *CLAIMS, "MNIST")),
    *(Theft("random", PRICE, name) for name in DEFENSES if name != "none"),
    *(Theft("random, labels only", PRICE, name) for name in ("MAD, eps 0.5", "misinformation")),  # which change labels
    *(Theft(attack, QUERIES[-1], seed=seed) for seed in (1, 2) for attack in CLAIMS),
]


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def thief(theft: Theft) -> Extraction:
    """The attack. Its settings were chosen on 2,000 images of the pool, and the victim's answers about them."""
    fit = Fit(epochs=round(40 * (QUERIES[-1] / theft.queries) ** 0.5), batch_size=128)
    if theft.attack in CLAIMS:
        return ActiveExtraction(COPY, theft.queries, fit, RandomShift(1, mirror=True), None, SmallestMargin(), rounds=1)
    return Knockoff(COPY, theft.queries, fit, RandomShift(1, mirror=True))


def victim_at(folder: Path, splits: Splits, train: Dataset) -> nn.Module:
    """The victim that lies in a folder; one that does not is trained, and put there."""
    if not (folder / "card.json").exists():
        generator = seeded(0)
        model = VICTIM(train.shape, len(train.classes), generator=generator)
        Fit(epochs=12, batch_size=128)(model, train, StrongAugmentation(shift=1, cut=0, mix=0), generator=generator)
        save_checkpoint(folder, model, VICTIM, splits.card, rows=len(train))
    return load_checkpoint(folder, VICTIM, splits.card)


def rows_of(
    theft: Theft, victim: nn.Module, defended: nn.Module, pool: Dataset, test: Dataset
) -> Iterator[dict[str, Any]]:
    """Steal, and measure: the copy against the victim as its owner knows it, and what honest users are left with."""
    oracle = Oracle(defended, labels_only=theft.attack.endswith("labels only"), budget=theft.queries)
    stolen = thief(theft)(oracle, pool, generator=seeded(theft.seed))
    cell = theft._asdict() | {"queries": stolen.queries}
    yield fidelity(stolen.model, victim, test.x, **cell)
    yield accuracy("clean_accuracy", stolen.model, test, **cell)
    yield accuracy("honest_accuracy", defended, test, **cell)
    yield untouched(logits_of(defended, test.x), logits_of(victim, test.x)) | cell
    if theft.defense == "none":
        few = test.sample(TRANSFER_ROWS, 0)
        yield transfer(TRANSFER, stolen.model, victim, few, **cell)


def accuracy(metric: str, model: nn.Module, test: Dataset, **cell: Any) -> dict[str, Any]:
    return rate(metric, int((logits_of(model, test.x).argmax(1) == test.y).sum()), len(test), **cell)


def untouched(published: Tensor, true: Tensor) -> dict[str, Any]:
    """The share of probability that honest users find where it belongs: 1 less the total variation distance."""
    shares = torch.minimum(published.softmax(1), true.softmax(1)).sum(1).double()
    mean, error = shares.mean().item(), shares.std().item() / len(shares) ** 0.5
    ends = {"low": mean - 1.96 * error, "high": min(1.0, mean + 1.96 * error)}
    return {"metric": "honest_probability", "value": mean, **ends, "n": len(shares)}


def figures(found: pd.DataFrame, out: Path) -> None:
    """Draw what the file has: fidelity against queries, and what each defense costs whom."""
    curves = found[(found.defense == "none") & (found.seed == 0) & found.attack.isin(("random", *CLAIMS, "MNIST"))]
    caption = (
        "Fashion-MNIST: copies of a network, from its answers about images of its own kind or, last, about MNIST, with "
        "95 % Clopper-Pearson intervals."
    )
    figure = extraction_curves(curves.rename(columns={"queries": "level"}), caption)
    figure.savefig(out.with_suffix(".png"), metadata={"Software": None})
    plt.close(figure)
    priced = found[(found.attack == "random") & (found.queries == PRICE)]
    cells = priced.set_index(["defense", "metric"])[["value", "low", "high"]].unstack()
    for metric, useful in {"honest_accuracy": "accuracy", "honest_probability": "probability where it belongs"}.items():
        columns = {
            f"{place}{end}": cells[column, measure]
            for place, measure in (("useful", metric), ("fidelity", "fidelity"))
            for end, column in (("", "value"), ("_low", "low"), ("_high", "high"))
        }
        points = pd.DataFrame(columns).reindex(list(DEFENSES)).dropna().rename_axis("defense").reset_index()
        caption = (
            f"Fashion-MNIST: what {PRICE:,} answers about random images are worth to honest users and to a thief "
            "who believes them. The dotted line is a thief who looks at winners alone, which no defense keeps from "
            "anybody that leaves these as they are."
        )
        figure = defense_prices(points.assign(seed=0), caption, f"{useful}, left to honest users")
        figure.axes[0].axhline(cells["value", "fidelity"]["label"], color="#888888", linestyle=":", linewidth=1)
        figure.savefig(out.with_name(f"{out.stem}_{metric}.png"), metadata={"Software": None})
        plt.close(figure)


@click.command(help=__doc__)
@click.option("--root", type=click.Path(path_type=Path), default=Path("data"), help="the folder of prepared data")
@click.option("--victim", type=click.Path(path_type=Path), default=Path("scratch/extraction_victim"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(root: Path, victim: Path, out: Path) -> None:
    """Make the thefts that the file lacks, write their rows and the figures, say whether the claims hold."""
    torch.set_num_threads(1)
    for name in ("fashion_mnist", "mnist"):
        if not (root / name / "card.json").exists():
            prepare(name, root)
    splits = Prepared("fashion_mnist")(root)
    own, other = map(torch.from_numpy, stratified_split(splits.train.y.numpy(), len(splits.train) // 2, 0))
    train, pool = splits.train.subset(own), splits.train.subset(other)
    foreign = Prepared("mnist")(root).train.sample(len(pool), 0)
    model = victim_at(victim, splits, train)
    found = pd.read_csv(out) if out.exists() else pd.DataFrame(columns=[*Theft._fields, "metric"])
    for theft in THEFTS:
        if (found[list(Theft._fields)] == pd.Series(theft._asdict())).all(axis=1).any():
            continue
        defended = DEFENSES[theft.defense](model, data=Splits({"train": train}, splits.card))
        rows = list(rows_of(theft, model, defended, foreign if theft.attack == "MNIST" else pool, splits.test))
        found = pd.concat([found, pd.DataFrame(rows)]) if len(found) else pd.DataFrame(rows)
        with written_beside(out) as beside:
            found.to_csv(beside, index=False, float_format="%.6g")
        click.echo(f"{theft}: " + ", ".join(f"{row['metric']} {row['value']:.2%}" for row in rows))
    figures(found, out)
    short = False
    for attack, least in CLAIMS.items():
        at = found[(found.attack == attack) & (found.queries == QUERIES[-1]) & (found.metric == "fidelity")]
        holds = at.value.min() >= least
        short |= not holds
        click.echo(
            f"{attack}, {QUERIES[-1]:,} queries: fidelity {', '.join(f'{value:.2%}' for value in at.value)}, claimed "
            f"{least:.0%}: {'the claim holds' if holds else 'the claim fails'}"
        )
    if short:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
