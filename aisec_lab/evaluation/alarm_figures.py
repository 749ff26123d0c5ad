"""Figures of monitors: how soon they alarm after a change, and how often without one."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles


def delay_curves(rates: pd.DataFrame, wanted: float, caption: str) -> Figure:
    """Figure: delay of the alarm against the size of a change, one line for each monitor, a panel for each change.

    Args:
        rates: columns `attack` (the kind of change), `defense` (the monitor), `level` (the size in standard
            deviations), `value`, `low`, `high` (rows, above 0).
        wanted: delay that a horizontal line marks, in rows.
        caption: text below the figure.

    Returns:
        The figure. Lines of one size are set beside each other, so that their intervals can be told apart.
    """
    kinds = list(rates.groupby("attack", sort=False))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(kinds), figsize=(WIDTH, 3.4), sharey=True, squeeze=False)
        for axes, (kind, lines) in zip(panels[0], kinds, strict=True):
            monitors = list(lines.groupby("defense", sort=False))
            for place, (series, (monitor, line)) in enumerate(zip(series_styles(), monitors, strict=False)):
                line = line.astype(dict.fromkeys(["level", "value", "low", "high"], float)).sort_values("level")
                beside = line.level * 1.025 ** (place - (len(monitors) - 1) / 2)
                error = [line.value - line.low, line.high - line.value]
                axes.errorbar(beside, line.value, yerr=error, elinewidth=0.8, linewidth=0.9, label=monitor, **series)
            axes.axhline(wanted, color="#888888", linewidth=0.8)
            levels = sorted(set(lines.level.astype(float)))
            axes.set(title=kind, xlabel="shift (standard deviations)", xscale="log", yscale="log")
            axes.set_xticks(levels, [f"{level:g}" for level in levels])
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        panels[0, 0].set_ylabel("rows from the change to the alarm")
        return add_caption(add_legend(figure), caption)


def false_alarm_dots(rates: pd.DataFrame, stated: float, wanted: float, caption: str) -> Figure:
    """Figure: false alarms of each monitor, with intervals, on a logarithmic axis.

    Args:
        rates: columns `defense` (the monitor), `value`, `low`, `high` (alarms in 10,000 rows), from top to bottom.
        stated: rate that a dashed line marks, above 0.
        wanted: rate that a solid line marks, above 0.
        caption: text below the figure.

    Returns:
        The figure. An interval that begins at 0 begins at the left edge; a monitor without an alarm has no dot.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.8 + 0.24 * len(rates)))
        frame = rates.astype(dict.fromkeys(["value", "low", "high"], float)).reset_index(drop=True)
        edge = min(stated, frame.high.min()) / 20
        axes.hlines(frame.index, frame.low.clip(lower=edge), frame.high, color="#0072B2", linewidth=1.2)
        seen = frame[frame.value > 0]
        axes.plot(seen.value, seen.index, color="#0072B2", marker="o", linestyle="none")
        axes.axvline(stated, color="#888888", linewidth=0.8, linestyle="--")
        axes.axvline(wanted, color="#888888", linewidth=0.8)
        axes.set_yticks(frame.index, list(frame.defense))
        axes.invert_yaxis()
        axes.set(xlabel="alarms in 10,000 rows without a change", xscale="log", xlim=(edge, None))
        axes.xaxis.set_major_formatter("{x:g}")
        return add_caption(figure, caption)
