"""Membership inference as published: `AISEC_MIRROR=… python -m benchmarks.membership`.

64 networks, each trained on those of 2,000 records for which a coin fell heads; every one in turn is the target, the
others are its shadows. It fails unless LiRA's lower bound at 0.1 % false positives is twice the loss attack's upper
one, and 1 % at least.
"""

from pathlib import Path
from typing import Any, NamedTuple

import click
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor

from aisec_lab.attacks.inference.inclusion import inclusion_mask
from aisec_lab.attacks.inference.label_only import FlipPerturbation, LabelOnly, Perturbation, TranslationPerturbation
from aisec_lab.attacks.inference.lira import LiRA, OfflineLiRA
from aisec_lab.attacks.inference.rmia import RMIA, OfflineRMIA
from aisec_lab.attacks.inference.shadow_classifier import ShadowClassifier
from aisec_lab.attacks.inference.signals import (
    ConfidenceSignal,
    EntropySignal,
    LossSignal,
    ModifiedEntropySignal,
    ScaledLogitSignal,
)
from aisec_lab.core.files import written_beside
from aisec_lab.data import Dataset, Prepared, prepare
from aisec_lab.evaluation.membership import log_roc_curves, roc_points, tpr_at_fpr
from aisec_lab.models import MLP, Fit
from aisec_lab.models.training.fit_stack import ModelStack, fit_stack

MODELS, RECORDS, SEED = 64, 2000, 0
FPRS = (0.001, 0.01)
OUT = Path(__file__).with_suffix(".csv")
DRAWN = ("loss", "entropy", "shadow classifier", "LiRA", "LiRA offline", "RMIA", "RMIA offline")


class Setting(NamedTuple):
    """What the networks of a data set are, and how their answers are disturbed."""

    network: MLP
    fit: Fit
    perturbation: Perturbation


SETTINGS = {
    "location30": Setting(MLP(hidden=(128,)), Fit(epochs=20), FlipPerturbation(0.03, copies=20)),
    "fashion_mnist": Setting(MLP(hidden=(128,)), Fit(epochs=30), TranslationPerturbation(2)),
}


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def trained(rows: Dataset, setting: Setting) -> tuple[ModelStack, Tensor]:
    """The networks, and which records each has learned (K, N)."""
    included = inclusion_mask(MODELS, len(rows), generator=seeded(SEED))
    generators = [seeded(1000 + k) for k in range(MODELS)]
    stack = ModelStack(setting.network, rows.shape, len(rows.classes), generators)
    fit_stack(stack, rows, included, fit=setting.fit, generators=generators)
    return stack, included


def scores_of(stack: ModelStack, rows: Dataset, included: Tensor, setting: Setting) -> dict[str, Tensor]:
    """Scores (K, N) of each attack."""
    logits, x, y = stack.logits(rows.x), rows.x, rows.y
    loss, scaled = LossSignal()(logits, y), ScaledLogitSignal()(logits, y)
    labels = LabelOnly(setting.perturbation)
    return {
        "loss": loss,
        "confidence": ConfidenceSignal()(logits, y),
        "entropy": EntropySignal()(logits, y),
        "modified entropy": ModifiedEntropySignal()(logits, y),
        "label only": torch.stack([labels(stack.unstacked(k), x, y, generator=seeded(k)) for k in range(MODELS)]),
        "shadow classifier": ShadowClassifier().two_fold(logits, y, included, generator=seeded(SEED)),
        "LiRA": LiRA().leave_one_out(scaled, included),
        "LiRA offline": OfflineLiRA().leave_one_out(scaled, included),
        "RMIA": RMIA().leave_one_out(loss, included),
        "RMIA offline": OfflineRMIA().leave_one_out(loss, included),
    }


def records_of(name: str, scores: dict[str, Tensor], included: Tensor, accuracy: dict[str, float]) -> pd.DataFrame:
    """A record for each attack and rate of false positives."""
    records: list[dict[str, Any]] = []
    for attack, each in scores.items():
        for fpr in FPRS:
            rate = tpr_at_fpr(each, included, fpr, generator=seeded(SEED))
            counts = {"members": int(included.sum()), "non_members": int((~included).sum())}
            records.append({"data": name, "attack": attack, "fpr": fpr} | rate._asdict() | counts | accuracy)
    return pd.DataFrame(records)


@click.command(help=__doc__)
@click.option("--data", type=click.Choice(list(SETTINGS)), multiple=True, default=list(SETTINGS), show_default=True)
@click.option("--root", type=click.Path(path_type=Path), default=Path("data"), help="the folder of prepared data")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(data: tuple[str, ...], root: Path, out: Path) -> None:
    """Measure each data set, write its records and its curves, say whether the claim holds."""
    torch.set_num_threads(1)
    short = False
    for name in data:
        if not (root / name / "card.json").exists():
            prepare(name, root)
        train, setting = Prepared(name)(root).train, SETTINGS[name]
        rows = train.sample(RECORDS, SEED)
        stack, included = trained(rows, setting)
        right = stack.logits(rows.x).argmax(2) == rows.y
        accuracy = {
            "member_accuracy": right[included].double().mean().item(),
            "non_member_accuracy": right[~included].double().mean().item(),
        }
        scores = scores_of(stack, rows, included, setting)
        found = records_of(name, scores, included, accuracy)
        at = found[found.fpr == FPRS[0]].set_index("attack")
        holds = at.low["LiRA"] >= max(2 * at.high["loss"], 0.01)
        short |= not holds
        click.echo(
            f"{name}, at {FPRS[0]:.1%} false positives: LiRA {at.value['LiRA']:.2%} ({at.low['LiRA']:.2%} to "
            f"{at.high['LiRA']:.2%}), loss {at.value['loss']:.2%} ({at.low['loss']:.2%} to {at.high['loss']:.2%}): "
            f"{'the claim holds' if holds else 'the claim fails'}"
        )
        known = [pd.read_csv(out).query("data != @name")] if out.exists() else []
        with written_beside(out) as beside:
            pd.concat([*known, found]).to_csv(beside, index=False, float_format="%.6g")
        curves = {attack: roc_points(scores[attack], included) for attack in DRAWN}
        caption = (
            f"{name}: {MODELS} networks, each trained on about half of {RECORDS:,} records, each in turn the target. "
            "Only attacks that compare a record with itself find members where almost nobody may be accused wrongly."
        )
        figure = log_roc_curves(curves, caption, FPRS)
        figure.savefig(out.with_name(f"{out.stem}_{name}.png"), metadata={"Software": None})
        plt.close(figure)
    if short:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
