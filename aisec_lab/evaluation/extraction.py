"""Measures of model extraction: fidelity of a copy, transfer of attacks from it, and the cost of output defenses."""

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
from aisec_lab.evaluation.predictions import predict
from aisec_lab.evaluation.robustness import run_attack
from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles
from aisec_lab.evaluation.table import rate

MEASURES = {"fidelity": "fidelity to the victim", "clean_accuracy": "accuracy"}


def fidelity(copy: nn.Module, victim: nn.Module, x: Tensor, /, **cell: Any) -> dict[str, Any]:
    """How often a copy and its victim predict the same class (Jagielski et al., 2020, section 3).

    Args:
        copy: the extracted classifier.
        victim: the victim, with or without the defense of its outputs. A random one gets new draws.
        x: inputs (N, *input) that the victim was not trained on and the attacker has not queried.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        A row of the table: the metric `fidelity` with its interval.

    Raises:
        ValueError: a model with a single logit, or answers of NaN.
    """
    return rate("fidelity", int((predict(copy, x) == predict(victim, x)).sum()), len(x), **cell)


def transfer(
    attack: Attack, copy: nn.Module, victim: nn.Module, dataset: Dataset, /, *, seed: int, **cell: Any
) -> dict[str, Any]:
    """How often adversarial examples that are computed on a copy are misclassified by its victim.

    Only rows that the victim classifies correctly count. An attack that stops as soon as the copy misclassifies (`PGD`
    by default) leaves its points close to the copy's boundary, where the victim may still be correct: use
    `PGD(early_stop=False)` or `MIFGSM`.

    Args:
        attack: an evasion attack, which uses the copy only.
        copy: the extracted classifier, in evaluation mode. The victim itself gives the white-box rate.
        victim: the victim, in evaluation mode.
        dataset: rows and their true classes.
        seed: seed of the attack's generator, as in `run_attack`.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        A row of the table: the metric `transfer_asr` with its interval.

    Raises:
        ValueError: the victim classifies no row correctly, a model with a single logit, or answers of NaN.
    """
    right = dataset.subset(torch.arange(len(dataset))[predict(victim, dataset.x) == dataset.y])
    x_adv, _ = run_attack(attack, copy, right, seed=seed)
    return rate("transfer_asr", int((predict(victim, x_adv) != right.y).sum()), len(right), seed=seed, **cell)


def extraction_curves(rates: pd.DataFrame, caption: str) -> Figure:
    """Figure: fidelity and accuracy of copies against the number of queries, one line for each attack.

    Args:
        rates: columns `attack`, `metric` (`fidelity` and `clean_accuracy`), `level` (queries, at least 1), `value`,
            `low`, `high`.
        caption: text below the figure.

    Returns:
        The figure, with two panels.
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
        return add_caption(add_legend(figure), caption)


def defense_prices(points: pd.DataFrame, caption: str, useful: str = "accuracy left to honest users") -> Figure:
    """Figure: utility for honest users against fidelity of the thief's copy, a marker for each output defense.

    The lower and the further right, the better the defense.

    Args:
        points: columns `defense`, `seed`, `useful` and `fidelity`, the last two also with `_low` and `_high`.
        caption: text below the figure.
        useful: label of the horizontal axis: the utility, a share.

    Returns:
        The figure.
    """
    columns = {
        f"{name}{end}": f"{place}{end}"
        for name, place in (("useful", "clean"), ("fidelity", "robust"))
        for end in ("", "_low", "_high")
    }
    figure = pareto(points.rename(columns=columns), caption)
    figure.axes[0].set(xlabel=useful, ylabel="fidelity of the thief's copy")
    return figure
