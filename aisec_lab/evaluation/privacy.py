"""Promised and measured epsilon of the same model: on one figure, and whether the two contradict each other."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, series_styles

SIDES = {  # metric, and its label; from the promise down
    "epsilon_upper": "promised at most",
    "epsilon_ceiling": "most an audit of this size can show",
    "epsilon_lower": "shown at least",
}
CELL = ["study", "data", "model", "defense", "knob", "level", "seed"]


def contradictions(table: pd.DataFrame) -> list[str]:
    """The cells whose measured lower bound on epsilon exceeds the promised upper bound.

    One of the two is then wrong, or it is chance: if a promise is tight, a 95 % lower bound exceeds it in up to one
    audit of twenty.

    Args:
        table: the table, or a part of it. `epsilon_lower` and `epsilon_upper` of a cell differ in the attack only.

    Returns:
        A line of text for each such cell; empty if promises and measurements agree.

    Raises:
        ValueError: an `epsilon_lower` without an `epsilon_upper` in the same cell.
    """
    lower, upper = (table[table.metric == metric] for metric in ("epsilon_lower", "epsilon_upper"))
    both = lower.merge(upper, on=CELL, how="left", suffixes=("", "_upper"))
    if both.value_upper.isna().any():
        missing = ", ".join(sorted(set(both.defense[both.value_upper.isna()])))
        raise ValueError(f"no epsilon_upper beside the epsilon_lower of {missing}: measure both in one cell")
    return [
        f"{row.defense}: {row.attack} shows epsilon >= {row.value:.3g}, promised is <= {row.value_upper:.3g}"
        for row in both[both.value > both.value_upper].itertuples()
    ]


def epsilon_bounds(rows: pd.DataFrame, promises: Sequence[str], names: Sequence[str], caption: str) -> Figure:
    """Figure: accuracy, true positive rate of the best attack, and bounds on epsilon, for each promised epsilon.

    Args:
        rows: columns `defense` (the promise), `metric`, `value`, `low`, `high`. The metrics are `clean_accuracy`,
            `tpr_at_fpr_0.01` and those of SIDES. An infinite epsilon is drawn as an arrow.
        promises: values of `defense`, from left to right.
        names: their labels below the axis.
        caption: text below the figure.

    Returns:
        The figure, with three panels.
    """
    with plt.rc_context(STYLE):
        figure, (accuracy, leak, epsilon) = plt.subplots(1, 3, figsize=(WIDTH, 2.9))
        _rates(accuracy, rows[rows.metric == "clean_accuracy"], promises, "accuracy on test rows")
        _rates(leak, rows[rows.metric == "tpr_at_fpr_0.01"], promises, "members found at 1 % FPR")
        accuracy.set(ylim=(0, 1.02))
        leak.axhline(0.01, color="#888888", linewidth=0.8)
        leak.set(ylim=(0, None))
        values = rows[rows.metric.isin(SIDES)].pivot(index="metric", columns="defense", values="value")
        values = values.reindex(columns=list(promises)).astype(float)
        top = 1.25 * float(np.nanmax(values.where(np.isfinite(values)).to_numpy(), initial=1.0))
        for style, (metric, label) in zip(series_styles(), SIDES.items(), strict=False):
            drawn = values.loc[metric].to_numpy()
            marks = {"color": style["color"], "linestyle": "none", "marker": style["marker"]}
            epsilon.plot(range(len(promises)), np.where(np.isfinite(drawn), drawn, np.nan), label=label, **marks)
            for place in np.flatnonzero(np.isinf(drawn)):
                epsilon.annotate(
                    "", (place, top), (place, 0.85 * top), arrowprops={"arrowstyle": "->", "color": style["color"]}
                )
        epsilon.set(ylabel="epsilon", ylim=(-0.03 * top, 1.02 * top))
        for axes in (accuracy, leak, epsilon):
            axes.set_xticks(range(len(promises)), names)
            axes.set(xlabel="promised epsilon", xlim=(-0.4, len(promises) - 0.6))
        handles, labels = epsilon.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3, fontsize=8)
        figure.set_figheight(figure.get_figheight() + 0.2)
        return add_caption(figure, caption)


def _rates(axes: Axes, rows: pd.DataFrame, promises: Sequence[str], label: str) -> None:
    """One panel of rates with their intervals."""
    shown = rows.set_index("defense").loc[list(promises), ["value", "low", "high"]].astype(float)
    errors = [shown.value - shown.low, shown.high - shown.value]
    axes.errorbar(range(len(promises)), shown.value, yerr=errors, marker="o", linestyle="none", color="#0072B2")
    axes.set(ylabel=label)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
