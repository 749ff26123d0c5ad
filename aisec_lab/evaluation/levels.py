"""A figure for measures that are no accuracy, and for what is turned that is no budget."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from aisec_lab.evaluation.curves import draw
from aisec_lab.evaluation.style import STYLE, WIDTH, captioned, named, series_styles


def level_curves(rates: pd.DataFrame, xlabel: str, ylabel: str, caption: str) -> Figure:
    """Any measure against what was turned, a line for each model or attack.

    Args:
        rates: columns `line` (its name), `level`, `value`, `low`, `high`.
        xlabel, ylabel: what was turned and what was measured, with their units.
        caption: what the reader sees here.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
        for series, (name, line) in zip(series_styles(), rates.groupby("line", sort=False), strict=False):
            draw(axes, line, str(name), series)
        axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
        if rates.high.max() > 1:  # no share, which `draw` writes in per cent
            axes.yaxis.set_major_formatter(ScalarFormatter())
        return captioned(named(figure), caption)
