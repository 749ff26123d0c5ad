"""The figure for measures that are no accuracy."""

import pandas as pd
import pytest

from aisec_lab.evaluation import level_curves


@pytest.mark.parametrize(("value", "tick"), [(0.5, "50%"), (150.0, "150")])
def test_shares_are_in_per_cent_and_other_measures_in_their_own_unit(value, tick):
    """One line for each name, in the order of levels whatever the order of rows."""
    rates = pd.DataFrame(
        [
            {"line": line, "level": level, "value": value - level, "low": value / 2, "high": value * 1.2}
            for line in ("a", "b")
            for level in (0.2, 0.0, 0.1)
        ]
    )
    figure = level_curves(rates, "budget", "what is left", "A caption.")
    axes = figure.axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0.0, 0.1, 0.2]] * 2
    figure.canvas.draw()
    assert tick in [label.get_text() for label in axes.get_yticklabels()]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("budget", "what is left")
