"""A lower bound that passes its upper one is named; the figure shows what is there."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from aisec_lab.evaluation import contradictions, epsilon_bounds, tidy

PLACE = {"study": "privacy", "data": "digits", "model": "mlp", "seed": 0}


def sides(*bounds):
    """The table of promises (name, lower, upper)."""
    return tidy(
        {"defense": name, "attack": attack, "metric": metric, "value": value, **PLACE}
        for name, lower, upper in bounds
        for attack, metric, value in (("lira", "epsilon_lower", lower), ("none", "epsilon_upper", upper))
        if value is not None
    )


@pytest.mark.parametrize(
    ("bounds", "crossed"),
    [
        ([("a", 0.5, 1.0), ("b", 0.0, 0.1)], []),
        ([("a", 1.0, 1.0)], []),
        ([("a", 9.0, float("inf"))], []),
        ([("a", 0.5, 1.0), ("b", 1.2, 1.0)], ["b"]),
        ([("a", 3.0, 1.0), ("b", 1.2, 1.0)], ["a", "b"]),
    ],
)
def test_a_lower_bound_above_its_upper_one_is_named(bounds, crossed):
    """Each against its own promise, and an infinite one is never passed."""
    found = contradictions(sides(*bounds))
    assert [line.split(":")[0] for line in found] == crossed
    assert all("lira shows epsilon >=" in line for line in found)


def test_a_lower_bound_without_an_upper_one_is_refused():
    """It would contradict nothing, whatever it is."""
    with pytest.raises(ValueError, match="no epsilon_upper beside the epsilon_lower of b"):
        contradictions(sides(("a", 0.5, 1.0), ("b", 5.0, None)))


def test_another_seed_is_another_cell():
    """A promise of one training says nothing of another's."""
    lower = sides(("a", 2.0, None)).assign(seed=1)
    with pytest.raises(ValueError, match="no epsilon_upper"):
        contradictions(pd.concat([lower, sides(("a", 0.1, 3.0))]))


def test_the_figure_draws_every_promise_on_every_side():
    """Dots at the values; an arrow where nothing is promised."""
    promises = {"epsilon_1": (0.8, 0.01, 1.0, 0.1), "standard": (0.9, 0.2, float("inf"), 2.5)}
    rows = []
    for name, (accuracy, leak, upper, lower) in promises.items():
        rows += [
            {"defense": name, "metric": "clean_accuracy", "value": accuracy, "low": accuracy - 0.1, "high": 0.99},
            {"defense": name, "metric": "tpr_at_fpr_0.01", "value": leak, "low": 0.0, "high": leak + 0.1},
            {"defense": name, "metric": "epsilon_upper", "value": upper},
            {"defense": name, "metric": "epsilon_ceiling", "value": 3.0},
            {"defense": name, "metric": "epsilon_lower", "value": lower},
        ]
    figure = epsilon_bounds(pd.DataFrame(rows), list(promises), ["1", "none"], "A caption.")
    accuracy, leak, epsilon = figure.axes
    assert accuracy.containers[0].lines[0].get_ydata().tolist() == [0.8, 0.9]
    assert leak.containers[0].lines[0].get_ydata().tolist() == [0.01, 0.2]
    drawn = {line.get_label(): line.get_ydata().tolist() for line in epsilon.lines}
    assert drawn["shown at least"] == [0.1, 2.5]
    assert drawn["promised at most"][0] == 1.0
    assert len(epsilon.texts) == 1, "one arrow"
    assert [label.get_text() for label in epsilon.get_xticklabels()] == ["1", "none"]
    plt.close(figure)
