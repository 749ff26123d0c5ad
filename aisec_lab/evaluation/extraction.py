"""How much of a victim a stolen copy has, what the copy is good for, and what a defense of its answers costs."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from aisec_lab.attacks import Attack
from aisec_lab.data import Dataset
from aisec_lab.evaluation.curves import draw
from aisec_lab.evaluation.figures import pareto
from aisec_lab.evaluation.robustness import predict, run_attack
from aisec_lab.evaluation.style import STYLE, WIDTH, captioned, named, series_styles
from aisec_lab.evaluation.table import rate

MEASURES = {"fidelity": "fidelity to the victim", "clean_accuracy": "accuracy"}


def fidelity(copy: nn.Module, victim: nn.Module, x: Tensor, /, **cell: Any) -> dict[str, Any]:
    """The row of the table for how often a copy and its victim answer alike (Jagielski et al., 2020, section 3).

    Args:
        copy, victim: classifiers; the victim as its users or as its owner knows it, a random one with draws that no
            attack has seen.
        x: inputs (N, *input) that neither the victim was trained on nor the thief has asked about.
        cell: the other columns of the table.

    Returns:
        The metric `fidelity`: the share of rows whose winning classes are the same, with its interval.

    Raises:
        ValueError: one logit, or answers that are none.
    """
    return rate("fidelity", int((predict(copy, x) == predict(victim, x)).sum()), len(x), **cell)


def transfer(
    attack: Attack, copy: nn.Module, victim: nn.Module, dataset: Dataset, /, *, seed: int, **cell: Any
) -> dict[str, Any]:
    """The row of the table for adversarial examples that are found on a copy and shown to its victim.

    Only rows that the victim gets right count. An attack that stops as soon as the copy falls (`PGD` as it is) leaves
    its points at the copy's boundary, short of the victim's: give `PGD(early_stop=False)` or `MIFGSM`, which go on.

    Args:
        attack: an evasion attack, which sees the copy alone.
        copy, victim: classifiers in evaluation mode; with the victim for its own copy, the attack has all it can know.
        dataset: rows and their true classes.
        seed: as for `run_attack`.
        cell: the other columns of the table.

    Returns:
        The metric `transfer_asr`: the share of those rows that the victim then gets wrong, with its interval.

    Raises:
        ValueError: the victim gets no row right; one logit, or answers that are none.
    """
    right = dataset.subset(torch.arange(len(dataset))[predict(victim, dataset.x) == dataset.y])
    x_adv, _ = run_attack(attack, copy, right, seed=seed)
    return rate("transfer_asr", int((predict(victim, x_adv) != right.y).sum()), len(right), seed=seed, **cell)


def extraction_curves(rates: pd.DataFrame, caption: str) -> Figure:
    """Fidelity and accuracy of stolen copies against the queries that they cost, a line for each attack.

    Args:
        rates: columns `attack`, `metric` (`fidelity` and `clean_accuracy`), `level` (queries, at least 1), `value`,
            `low`, `high`.
        caption: what the reader sees here.
    """
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.8))
        levels = sorted(set(rates.level))
        for axes, (metric, label) in zip(panels, MEASURES.items(), strict=True):
            measured = rates[rates.metric == metric]
            for series, (attack, line) in zip(series_styles(), measured.groupby("attack", sort=False), strict=False):
                draw(axes, line, str(attack), series)
            axes.set(xlabel="rows asked", ylabel=label, xscale="log", ylim=(0, 1.02))
            axes.set_xticks(levels, [f"{level:g}" for level in levels])
            axes.minorticks_off()
        return captioned(named(figure), caption)


def defense_prices(points: pd.DataFrame, caption: str, useful: str = "accuracy left to honest users") -> Figure:
    """What an output defense leaves to honest users against what it leaves to a thief, a marker for each defense.

    Down and to the right is where a defense should stand.

    Args:
        points: columns `defense`, `seed`, `useful` and `fidelity`, each of the two with its `_low` and `_high`.
        caption: what the reader sees here.
        useful: what honest users are left with, a share.
    """
    named_so = {
        f"{name}{end}": f"{place}{end}"
        for name, place in (("useful", "clean"), ("fidelity", "robust"))
        for end in ("", "_low", "_high")
    }
    figure = pareto(points.rename(columns=named_so), caption)
    figure.axes[0].set(xlabel=useful, ylabel="fidelity of the thief's copy")
    return figure
