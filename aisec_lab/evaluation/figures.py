"""Figures in one style: for print and for colour-blind readers, with units, intervals and a caption."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(  # Okabe & Ito (2008): distinct in any colour vision, in grey by marker and dash
        color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"],
        marker=["o", "s", "^", "D", "v", "P", "X"],
        linestyle=["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))],
    ),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.markersize": 5,
}
WIDTH = 6.5  # inches: the text width of a page


def _captioned(figure: Figure, caption: str) -> Figure:
    """Set the caption under the figure, growing the figure by as much."""
    text = textwrap.fill(caption, 105)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color="#444444")
    figure.set_figheight(figure.get_figheight() + 0.14 * (text.count("\n") + 1))
    return figure


def _series() -> list[dict[str, Any]]:
    return list(STYLE["axes.prop_cycle"])


def learning_curve(history: Sequence[dict[str, float]], caption: str) -> Figure:
    """Loss and accuracy by epoch.

    Args:
        history: what `Fit` returns.
        caption: what the reader sees here.
    """
    records = pd.DataFrame(history)
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4))
        left.plot(records.epoch + 1, records.loss, markevery=5)
        left.set(xlabel="epoch", ylabel="objective (nats)", ylim=(0, None))
        right.plot(records.epoch + 1, records.accuracy, markevery=5)
        right.set(xlabel="epoch", ylabel="accuracy on clean training data", ylim=(0, 1.02))
        right.yaxis.set_major_formatter(PercentFormatter(1))
        return _captioned(figure, caption)


def security_curves(rates: pd.DataFrame, unit: str, caption: str) -> Figure:
    """Accuracy against perturbation budget, a line for each defense with its interval as a band.

    Args:
        rates: columns `defense`, `level`, `value`, `low`, `high`, and optionally `worst`, true for points that are
            the worst case over attacks: these are drawn as stars.
        unit: name of the budget, such as "Linf".
        caption: what the reader sees here.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
        for series, (defense, line) in zip(_series(), rates.groupby("defense", sort=False), strict=False):
            line = line.astype({"level": float, "value": float, "low": float, "high": float})
            worst = line.worst.astype(bool) if "worst" in line else pd.Series(False, index=line.index)
            curve, stars = line[~worst].sort_values("level"), line[worst]
            axes.plot(curve.level, curve.value, label=defense, **series)
            axes.fill_between(curve.level, curve.low, curve.high, color=series["color"], alpha=0.15, linewidth=0)
            axes.plot(stars.level, stars.value, "*", color=series["color"], markersize=11, markeredgecolor="white")
        axes.set(xlabel=f"perturbation budget eps ({unit}, pixels in [0, 1])", ylabel="accuracy", ylim=(0, 1.02))
        axes.set_xlim(0, None)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend()
        return _captioned(figure, caption)


def pareto(points: pd.DataFrame, caption: str) -> Figure:
    """Clean against robust accuracy, a marker for each defense and seed, with its intervals.

    Args:
        points: columns `defense`, `seed`, `clean`, `robust` (with `_low`, `_high`).
        caption: what the reader sees here.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
        for series, (defense, cloud) in zip(_series(), points.groupby("defense", sort=False), strict=False):
            cloud = cloud.astype({name: float for name in cloud.columns if name not in ("defense", "seed")})
            axes.errorbar(
                cloud.clean,
                cloud.robust,
                xerr=[cloud.clean - cloud.clean_low, cloud.clean_high - cloud.clean],
                yerr=[cloud.robust - cloud.robust_low, cloud.robust_high - cloud.robust],
                color=series["color"],
                marker=series["marker"],
                linestyle="none",
                elinewidth=0.8,
                label=defense,
            )
        axes.set(xlabel="clean accuracy", ylabel="robust accuracy, worst case over attacks")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_ylim(-0.02, 1.02)
        axes.legend(title="trained with")
        return _captioned(figure, caption)


def adversarial_grid(rows: dict[str, tuple[Tensor, Tensor, list[str]]], caption: str) -> Figure:
    """Clean, adversarial and difference images, three lines for each defense.

    Args:
        rows: for each defense, clean and adversarial images (n, C, H, W) in [0, 1], and n titles.
        caption: what the reader sees here.
    """
    columns = min(len(x) for x, _, _ in rows.values())
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(
            3 * len(rows), columns, figsize=(WIDTH, 3 * len(rows) * WIDTH / columns * 1.05), squeeze=False
        )
        for group, (defense, (x, x_adv, titles)) in enumerate(rows.items()):
            difference = x_adv - x
            scale = float(difference.abs().max()) or 1.0
            lines = {f"{defense}\nclean": x, "adversarial": x_adv, "difference": difference}
            for offset, (name, images) in enumerate(lines.items()):
                for column in range(columns):
                    axis = axes[3 * group + offset, column]
                    signed = name == "difference"
                    image = images[column] / (2 * scale) + 0.5 if signed else images[column]
                    pixels = np.asarray(image.clamp(0, 1).permute(1, 2, 0)).squeeze()
                    axis.imshow(pixels, cmap="PuOr" if signed else "gray", vmin=0, vmax=1, interpolation="nearest")
                    axis.set(xticks=[], yticks=[])
                    axis.spines[:].set_visible(False)
                    if name == "adversarial":
                        axis.set_title(titles[column], fontsize=7, pad=2)
                axes[3 * group + offset, 0].set_ylabel(name, fontsize=7)
        return _captioned(figure, caption)


def changed_features(difference: Tensor, features: Sequence[str], caption: str) -> Figure:
    """How far an attack moves each column of a table, on average.

    Args:
        difference: adversarial minus clean rows (n, D), in units of each column's range.
        features: D names.
        caption: what the reader sees here.
    """
    moved = pd.Series(difference.abs().mean(0).numpy(), index=list(features)).sort_values().tail(20)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.18 * len(moved)))
        axes.barh(moved.index, moved)
        axes.set(xlabel="mean absolute change (share of the column's range)")
        return _captioned(figure, caption)
