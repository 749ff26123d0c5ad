"""Compression: smaller files, and what they cost: `AISEC_MIRROR=… python -m benchmarks.compression`.

The claim is that a file can be 70 to 90 % smaller than the float32 ONNX export for at most one point of clean accuracy.
It fails unless each of the compressions that promise this keeps the promise on every data set, on average over seeds.
Latencies are ratios to the float32 export, both run by ONNX Runtime in turn, on one thread.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor, nn

from aisec_lab.attacks import APGD, PGD, Linf
from aisec_lab.core import clopper_pearson
from aisec_lab.core.files import written_beside
from aisec_lab.data import Prepared, Splits, prepare
from aisec_lab.defenses import AdversarialTraining, Standard
from aisec_lab.defenses.compression.compression import Compression, SequentialCompression
from aisec_lab.defenses.compression.distillation import KnowledgeDistillation
from aisec_lab.defenses.compression.hydra import HYDRA
from aisec_lab.defenses.compression.magnitude import MagnitudePruning
from aisec_lab.defenses.compression.quantisation import DynamicInt8, StaticInt8, WeightOnly
from aisec_lab.defenses.compression.structured import StructuredPruning
from aisec_lab.evaluation import predicted_classes, run_attack
from aisec_lab.evaluation.compression import compression_dots
from aisec_lab.models import CNN, Architecture, Fit, StridedCNN
from aisec_lab.models.onnx.export import OnnxClassifier, onnx_bytes
from benchmarks.fifty_points import paired_difference

LEAST, MOST, POINTS = 0.70, 0.90, 0.01  # the claim: smaller by so much, for so much of clean accuracy
PROMISED = ("int8 static", "int8 dynamic", "int4 weights", "25 % of channels, int8")
OUT = Path(__file__).with_suffix(".csv")


class Setting(NamedTuple):
    """What is trained on a data set, how long, and who attacks."""

    train_size: int | None
    network: Architecture
    student: Architecture
    fit: Fit
    again: Fit  # the training after pruning, or of one round of it
    seeds: tuple[int, ...]
    attacked: int  # test rows under attack; the clean accuracy is over all of them
    ball: Linf


SETTINGS = {
    "digits": Setting(
        None, CNN(), CNN(8, 32), Fit(epochs=20), Fit(epochs=10), seeds=(0, 1, 2), attacked=500, ball=Linf(0.05)
    ),
    "fashion_mnist": Setting(
        20_000, StridedCNN(), StridedCNN(8, 48), Fit(epochs=5), Fit(epochs=1), seeds=(0,), attacked=500, ball=Linf(0.02)
    ),
}


def compressions(setting: Setting) -> dict[str, Compression]:
    """What is compared, by name."""
    inner = PGD(setting.ball, steps=3, step_size=0.5, early_stop=False)
    scores = Fit(epochs=setting.again.epochs, weight_decay=0.0)
    narrower = StructuredPruning(0.25, setting.again)
    return {
        "int8 static": StaticInt8(),
        "int8 dynamic": DynamicInt8(),
        "int4 weights": WeightOnly(),
        "80 % of weights": MagnitudePruning(0.8, fit=setting.again),
        "90 % of weights": MagnitudePruning(0.9, fit=setting.again),
        "90 % of weights, robust": HYDRA(AdversarialTraining(inner), 0.9, scores, setting.again),
        "50 % of channels": StructuredPruning(0.5, setting.again),
        "25 % of channels, int8": SequentialCompression((narrower, StaticInt8())),
        "50 % of channels, int4": SequentialCompression((StructuredPruning(0.5, setting.again), WeightOnly())),
        "student": KnowledgeDistillation(setting.student, setting.fit),
    }


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def records_of(name: str, splits: Splits, setting: Setting) -> Iterator[dict[str, Any]]:
    """One record a seed and compression, the model before it first."""
    train, test, classes = splits.train, splits.test, len(splits.test.classes)
    sample, attack = test.sample(setting.attacked, seed=0), APGD(setting.ball, steps=20)
    for seed in setting.seeds:
        model: nn.Module = setting.network(train.shape, classes, generator=seeded(seed))
        setting.fit(model, train, Standard(), generator=seeded(seed))
        baseline = onnx_bytes(model, train.shape)
        before_file = OnnxClassifier(baseline)
        before = predicted_classes(model, test.x, classes) == test.y
        for compression, compress in {"none": lambda model, **_: model, **compressions(setting)}.items():
            smaller = compress(model, data=train, generator=seeded(seed))
            content = onnx_bytes(smaller, train.shape)
            file = OnnxClassifier(content)
            answers = predicted_classes(smaller, test.x, classes)
            x_adv, _ = run_attack(attack, smaller, sample, seed=seed)
            change, low, high = paired_difference(answers == test.y, before)
            yield {
                "data": name,
                "compression": compression,
                "seed": seed,
                "bytes": len(content),
                "size_ratio": len(baseline) / len(content),
                "smaller": 1 - len(content) / len(baseline),
                **rate("clean", answers == test.y),
                "clean_change": change,
                "clean_change_low": low,
                "clean_change_high": high,
                **rate("robust", predicted_classes(smaller, x_adv, classes) == sample.y),
                "eps": setting.ball.eps,
                "onnx_agreement": (predicted_classes(file, test.x, classes) == answers).double().mean().item(),
                "latency_ratio_1": slower(file, before_file, test.x[:1], pairs=300),
                "latency_ratio_64": slower(file, before_file, test.x[:64], pairs=30),
            }


def rate(name: str, right: Tensor) -> dict[str, float]:
    k, n = int(right.sum()), len(right)
    low, high = clopper_pearson(k, n)
    return {f"{name}_accuracy": k / n, f"{name}_low": low, f"{name}_high": high, f"{name}_n": n}


def slower(first: nn.Module, second: nn.Module, x: Tensor, pairs: int) -> float:
    """The time of one model over that of another, the median of pairs of calls one after the other."""

    def seconds(model: nn.Module) -> float:
        begin = time.process_time()
        model(x)
        return time.process_time() - begin

    ratios = [seconds(first) / seconds(second) for _ in range(pairs + pairs // 10)]
    return median(ratios[pairs // 10 :])  # the first calls find no warm memory


def drawn(name: str, found: pd.DataFrame) -> plt.Figure:
    """The figure of a data set, of its first seed."""
    one = found[found.seed == found.seed.min()]
    rates = pd.concat(
        one[["compression", f"{kind}_accuracy", f"{kind}_low", f"{kind}_high"]]
        .set_axis(["defense", "value", "low", "high"], axis=1)
        .assign(metric=f"{kind}_accuracy")
        for kind in ("clean", "robust")
    )
    sizes = dict(zip(one.compression, 1 - one.smaller, strict=True))
    caption = (
        f"{name}: {SETTINGS[name].network} as it is and compressed. Robust accuracy is under APGD with Linf "
        f"{one.eps.iloc[0]:g}, of {one.robust_n.iloc[0]} test images; intervals are of 95 %. Seed {one.seed.iloc[0]}."
    )
    return compression_dots(rates, sizes, list(one.compression), caption)


def verdict(name: str, found: pd.DataFrame) -> bool:
    """Whether the promises are kept; a line for each compression."""
    kept = True
    for compression, rows in found[found.compression != "none"].groupby("compression", sort=False):
        smaller, change = rows.smaller.mean(), rows.clean_change.mean()
        holds = LEAST <= smaller <= MOST and change >= -POINTS - 1e-9
        kept &= holds or compression not in PROMISED
        click.echo(
            f"{name}, {compression}: {smaller:.1%} smaller, {100 * change:+.2f} points of clean accuracy, "
            f"{rows.robust_accuracy.mean():.1%} robust, {rows.latency_ratio_1.mean():.2f} (one row) and "
            f"{rows.latency_ratio_64.mean():.2f} (64 rows) times the latency: the claim {'holds' if holds else 'fails'}"
            f"{', as promised' if holds and compression in PROMISED else ''}"
        )
    return bool(kept)


@click.command(help=__doc__)
@click.option("--data", type=click.Choice(list(SETTINGS)), multiple=True, default=list(SETTINGS), show_default=True)
@click.option("--root", type=click.Path(path_type=Path), default=Path("data"), help="the folder of prepared data")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(data: tuple[str, ...], root: Path, out: Path) -> None:
    """Measure each data set, write its records and its figure, say whether the claim holds."""
    torch.set_num_threads(1)
    kept = True
    for name in data:
        if not (root / name / "card.json").exists():
            prepare(name, root)
        found = pd.DataFrame(records_of(name, Prepared(name, SETTINGS[name].train_size)(root), SETTINGS[name]))
        kept &= verdict(name, found)
        known = [pd.read_csv(out).query("data != @name")] if out.exists() else []
        with written_beside(out) as beside:
            pd.concat([*known, found]).to_csv(beside, index=False, float_format="%.6g")
        figure = drawn(name, found)
        figure.savefig(out.with_name(f"{out.stem}_{name}.png"), metadata={"Software": None})
        plt.close(figure)
    if not kept:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
