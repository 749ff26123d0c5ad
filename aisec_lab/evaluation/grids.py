"""Figures: a grid of rates, ROC curves of detectors, bars and dots."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from torch import Tensor

from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles

DARK = 0.55  # rate from which the text of a cell is white


def rate_grid(rows: pd.DataFrame, attacks: Sequence[str], defenses: Sequence[str], label: str, caption: str) -> Figure:
    """Figure: the rate of every attack (rows) against every defense (columns), with its interval.

    Args:
        rows: columns `attack`, `defense`, `value`, `low`, `high`, in [0, 1]; one row for each cell.
        attacks: from top to bottom.
        defenses: from left to right.
        label: name of the rate.
        caption: text below the figure.

    Returns:
        The figure; pairs that are not in `rows` have a dash.
    """
    cells = rows.set_index(["attack", "defense"])[["value", "low", "high"]].astype(float)
    values = cells.value.unstack().reindex(index=list(attacks), columns=list(defenses))
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.42 * len(attacks)))
        image = axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for i, attack in enumerate(attacks):
            for j, defense in enumerate(defenses):
                if np.isnan(values.iloc[i, j]):
                    axes.text(j, i, "-", ha="center", va="center", color="#444444")
                    continue
                value, low, high = cells.loc[(attack, defense)]
                color = "white" if value > DARK else "black"
                axes.text(j, i - 0.12, f"{value:.0%}", ha="center", va="center", color=color, fontsize=8)
                axes.text(j, i + 0.25, f"{low:.0%} to {high:.0%}", ha="center", va="center", color=color, fontsize=5.5)
        axes.set_xticks(range(len(defenses)), [name.replace("_", "\n") for name in defenses], fontsize=7)
        axes.set_yticks(range(len(attacks)), [name.replace("_", " ") for name in attacks], fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label=label, format=PercentFormatter(1), fraction=0.04, pad=0.02)
        return add_caption(figure, caption)


def roc_curves(curves: Mapping[str, pd.DataFrame], caption: str, fpr: float = 0.01) -> Figure:
    """Figure: ROC curves of detectors, the false positive rate on a logarithmic axis.

    Args:
        curves: by name, columns `fpr` and `tpr`, as `roc` returns them.
        caption: text below the figure.
        fpr: false positive rate that a vertical line marks.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3))
        for style, (name, curve) in zip(series_styles(), curves.items(), strict=False):
            shown = {"color": style["color"], "linestyle": style["linestyle"], "marker": "none"}
            axes.step(curve.fpr, curve.tpr, where="post", label=name, **shown)
        axes.axvline(fpr, color="#888888", linewidth=0.8)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(8e-4, 1.05), ylim=(-0.02, 1.02))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        return add_caption(add_legend(figure), caption)


def class_bars(values: Tensor, classes: Sequence[str], label: str, caption: str, marked: Sequence[int] = ()) -> Figure:
    """Figure: a bar for each class, some of them hatched.

    Args:
        values: value of each class (K,).
        classes: K names.
        label: name of the values, with their unit.
        caption: text below the figure.
        marked: numbers of the classes whose bars are hatched.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 2.4))
        bars = axes.bar(range(len(classes)), values.tolist(), color="#56B4E9")
        for k in marked:
            bars[k].set(hatch="///", edgecolor="black")
        axes.set_xticks(range(len(classes)), classes, rotation=30 if max(map(len, classes)) > 4 else 0)
        axes.set(xlabel="class", ylabel=textwrap.fill(label, 28), ylim=(0, None))
        axes.grid(axis="x", visible=False)
        return add_caption(figure, caption)


def rate_dots(rows: pd.DataFrame, defenses: Sequence[str], caption: str) -> Figure:
    """Figure: several rates of each defense on one axis, with their intervals.

    Args:
        rows: columns `defense`, `metric`, `value`, `low`, `high`, in [0, 1].
        defenses: from top to bottom.
        caption: text below the figure.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.7 + 0.26 * len(defenses)))
        place = {name: i for i, name in enumerate(defenses)}
        for style, (metric, group) in zip(series_styles(), rows.groupby("metric", sort=True), strict=False):
            value, low, high = (group[name].astype(float).to_numpy() for name in ("value", "low", "high"))
            axes.errorbar(
                value,
                [place[name] for name in group.defense],
                xerr=[value - low, high - value],
                color=style["color"],
                marker=style["marker"],
                linestyle="none",
                label=metric,
            )
        axes.set_yticks(range(len(defenses)), [name.replace("_", " ") for name in defenses])
        axes.invert_yaxis()
        axes.set(xlim=(-0.02, 1.02))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        return add_caption(add_legend(figure), caption)
