"""A figure for measures other than accuracy, against parameters other than a perturbation budget."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from aisec_lab.evaluation.curves import draw
from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles


def level_curves(rates: pd.DataFrame, xlabel: str, ylabel: str, caption: str) -> Figure:
    """Figure: any measure against any parameter, one line for each model or attack.

    Args:
        rates: columns `line` (its name), `level` (value of the parameter), `value`, `low`, `high`.
        xlabel: name of the parameter, with its unit.
        ylabel: name of the measure, with its unit.
        caption: text below the figure.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
        for series, (name, line) in zip(series_styles(), rates.groupby("line", sort=False), strict=False):
            draw(axes, line, str(name), series)
        axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
        if rates.high.max() > 1:  # not a share, which `draw` labels in per cent
            axes.yaxis.set_major_formatter(ScalarFormatter())
        return add_caption(add_legend(figure), caption)
