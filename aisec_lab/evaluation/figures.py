"""Figures of single experiments and of the trade-off of defenses, with units, intervals and a caption."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles


def learning_curve(history: Sequence[dict[str, float]], caption: str) -> Figure:
    """Figure: loss and training accuracy by epoch.

    Args:
        history: one record for each epoch, as `Fit` returns them: `epoch`, `loss` and `accuracy`.
        caption: text below the figure.

    Returns:
        The figure, with two panels.
    """
    records = pd.DataFrame(history)
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4))
        left.plot(records.epoch + 1, records.loss, markevery=5)
        left.set(xlabel="epoch", ylabel="objective (nats)", ylim=(0, None))
        right.plot(records.epoch + 1, records.accuracy, markevery=5)
        right.set(xlabel="epoch", ylabel="clean training accuracy", ylim=(0, 1.02))
        right.yaxis.set_major_formatter(PercentFormatter(1))
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        return add_caption(figure, caption)


def pareto(points: pd.DataFrame, caption: str) -> Figure:
    """Figure: clean against robust accuracy, a marker for each defense and seed, with intervals.

    Args:
        points: columns `defense`, `seed`, `clean` and `robust`, the last two also with `_low` and `_high`.
        caption: text below the figure.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
        for series, (defense, cloud) in zip(series_styles(), points.groupby("defense", sort=False), strict=False):
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
        return add_caption(add_legend(figure), caption)


def adversarial_grid(
    rows: dict[str, tuple[Tensor, Tensor, list[str]]], caption: str, changed: str = "adversarial"
) -> Figure:
    """Figure: clean images, adversarial images and their differences, three lines for each defense.

    Args:
        rows: for each defense, clean and adversarial images (n, C, H, W) in [0, 1], and n titles.
        caption: text below the figure.
        changed: label of the second line.

    Returns:
        The figure.
    """
    columns = min(len(x) for x, _, _ in rows.values())
    width = WIDTH / columns
    above = {name: [textwrap.fill(title, int(17 * width)) for title in titles] for name, (_, _, titles) in rows.items()}
    heights = [3 * width + 0.2 + 0.12 * (2 + max(title.count("\n") for title in titles)) for titles in above.values()]
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure = plt.figure(figsize=(WIDTH, sum(heights)))
        groups = figure.subfigures(len(rows), height_ratios=heights, squeeze=False)[:, 0]
        for group, (defense, (x, x_adv, _)) in zip(groups, rows.items(), strict=True):
            difference = x_adv - x
            scale = float(difference.abs().max()) or 1.0
            group.suptitle(defense, fontsize=8, fontweight="bold", x=0.01, ha="left")
            axes = group.subplots(3, columns, squeeze=False)
            lines = {"clean": x, changed: x_adv, "difference": difference}
            for line, (name, images) in zip(axes, lines.items(), strict=True):
                line[0].set_ylabel(name, fontsize=7)
                for axis, image, title in zip(line, images, above[defense], strict=False):
                    signed = name == "difference"
                    shown = image / (2 * scale) + 0.5 if signed else image
                    pixels = np.asarray(shown.clamp(0, 1).permute(1, 2, 0)).squeeze()
                    axis.imshow(pixels, cmap="PuOr" if signed else "gray", vmin=0, vmax=1, interpolation="nearest")
                    axis.set(xticks=[], yticks=[])
                    axis.spines[:].set_visible(False)
                    if name == changed:
                        axis.set_title(title, fontsize=7, pad=2)
        return add_caption(figure, caption)


def changed_features(difference: Tensor, features: Sequence[str], caption: str) -> Figure:
    """Figure: mean absolute change of each feature of tabular data, for the 20 features that change most.

    Args:
        difference: adversarial minus clean rows (n, D), in units of each feature's range.
        features: D names.
        caption: text below the figure.

    Returns:
        The figure.
    """
    moved = pd.Series(difference.abs().mean(0).numpy(), index=list(features)).sort_values().tail(20)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.18 * len(moved)))
        axes.barh(moved.index, moved)
        axes.set(xlabel="mean absolute change (share of range)")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", visible=False)
        return add_caption(figure, caption)
