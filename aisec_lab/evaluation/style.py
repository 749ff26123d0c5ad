"""One style for all figures: for print and for colour-blind readers, with room for a caption and a legend."""

import textwrap
from collections.abc import Iterator
from itertools import count
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
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

# Loaded now: a notebook's backend switches `interactive` on as it loads; inside rc_context that would be undone at its
# end, and every figure but the first would never be shown.
plt.switch_backend(matplotlib.get_backend())


def captioned(figure: Figure, caption: str) -> Figure:
    """Set the caption under the figure, growing the figure by as much."""
    text = textwrap.fill(caption, 105)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color="#444444")
    figure.set_figheight(figure.get_figheight() + 0.14 * (text.count("\n") + 1))
    return figure


def named(figure: Figure) -> Figure:
    """Set the legend above the axes, where it hides no data, growing the figure by as much."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    columns = max(1, int(WIDTH / (0.5 + 0.07 * max(map(len, names)))))
    figure.legend(handles, names, loc="outside upper left", ncols=columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(names) // columns))
    return figure


def series_styles() -> Iterator[dict[str, Any]]:
    """Colour, marker and dash of one line after another; after each round the markers are shifted by one."""
    styles = list(STYLE["axes.prop_cycle"])
    for line in count():
        yield styles[line % len(styles)] | {"marker": styles[(line + line // len(styles)) % len(styles)]["marker"]}
