"""Sizes of compressed models, and what compression costs in accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import nn

from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles
from aisec_lab.models.onnx.export import onnx_bytes


def size_rows(
    baseline: nn.Module, compressed: Mapping[str, nn.Module], shape: tuple[int, ...], /, **cell: Any
) -> list[dict[str, Any]]:
    """Sizes of models on disk, written as ONNX.

    Args:
        baseline: the classifier before compression, in float32.
        compressed: compressed classifiers, by the name of the compression.
        shape: shape of one input.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table, two for each compression, whose name is in the column `defense`: `bytes`, the size of its
        file, and `size_ratio`, the baseline's bytes divided by these. They have no interval.

    Raises:
        ValueError: a layer that cannot be written as ONNX.
    """
    before = len(onnx_bytes(baseline, shape))
    rows = []
    for name, model in compressed.items():
        size = len(onnx_bytes(model, shape))
        rows.append({"metric": "bytes", "value": float(size), "defense": name} | cell)
        rows.append({"metric": "size_ratio", "value": before / size, "defense": name} | cell)
    return rows


def compression_dots(rates: pd.DataFrame, sizes: Mapping[str, float], order: Sequence[str], caption: str) -> Figure:
    """Figure: the rates of each compressed model with their intervals, beside its size.

    Args:
        rates: columns `defense` (the compression), `metric`, `value`, `low`, `high`, in [0, 1].
        sizes: size of each compression as a share of the float32 file.
        order: compressions from top to bottom.
        caption: text below the figure.

    Returns:
        The figure, with two panels.
    """
    places = {name: i for i, name in enumerate(order)}
    with plt.rc_context(STYLE):
        height = 0.9 + 0.26 * len(order)
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, height), sharey=True, width_ratios=[3, 2])
        metrics = rates.groupby("metric", sort=False)
        for i, (style, (metric, group)) in enumerate(zip(series_styles(), metrics, strict=False)):
            value, low, high = (group[name].astype(float).to_numpy() for name in ("value", "low", "high"))
            nudge = 0.24 * (i - (metrics.ngroups - 1) / 2)  # so that intervals of two rates do not hide each other
            left.errorbar(
                value,
                [places[name] + nudge for name in group.defense],
                xerr=[value - low, high - value],
                color=style["color"],
                marker=style["marker"],
                linestyle="none",
                elinewidth=0.8,
                label=str(metric).replace("_", " "),
            )
        left.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
        left.set(xlim=(-0.02, 1.02), xlabel="accuracy")
        shares = [sizes[name] for name in order]
        right.barh(range(len(order)), shares, height=0.6, color="#56B4E9")
        for place, share in enumerate(shares):
            right.annotate(f"{share:.0%}", (share, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
        right.set(xlim=(0, max(1.0, *shares) * 1.15), xlabel="share of the float32 file")
        right.tick_params(axis="y", length=0)
        left.invert_yaxis()
        for axes in (left, right):
            axes.xaxis.set_major_formatter(PercentFormatter(1))
        return add_caption(add_legend(figure), caption)
