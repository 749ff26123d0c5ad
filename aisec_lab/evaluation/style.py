"""One style for all figures: readable in print and with any colour vision, with a caption and a legend."""

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
    "axes.prop_cycle": cycler(  # Okabe & Ito (2008): distinct in any colour vision; markers and dashes in grey
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

# Load the backend now: a notebook's backend switches `interactive` on when it loads. Within rc_context that would be
# undone at its end, and only the first figure would be shown.
plt.switch_backend(matplotlib.get_backend())


def add_caption(figure: Figure, caption: str) -> Figure:
    """Set the caption below the figure, and enlarge the figure by its height."""
    text = textwrap.fill(caption, 105)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color="#444444")
    figure.set_figheight(figure.get_figheight() + 0.14 * (text.count("\n") + 1))
    return figure


def add_legend(figure: Figure) -> Figure:
    """Set the legend above the axes, where it hides no data, and enlarge the figure by its height."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    columns = max(1, int(WIDTH / (0.5 + 0.07 * max(map(len, names)))))
    figure.legend(handles, names, loc="outside upper left", ncols=columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(names) // columns))
    return figure


def series_styles() -> Iterator[dict[str, Any]]:
    """Colour, marker and dash of each line in turn; after all colours, the markers are shifted by one."""
    styles = list(STYLE["axes.prop_cycle"])
    for line in count():
        yield styles[line % len(styles)] | {"marker": styles[(line + line // len(styles)) % len(styles)]["marker"]}
