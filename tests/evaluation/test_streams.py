"""Streams that drift by a stated size, and the rows of the table that come of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from aisec_lab.core import median_interval, poisson_interval
from aisec_lab.evaluation import (
    alarm_delay,
    delay_curves,
    delay_rows,
    drifting_rows,
    false_alarm_dots,
    false_alarm_row,
    tidy,
    tilted_weights,
)


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.95, 0.95), st.integers(2, 60), st.integers(0, 2**31))
def test_weights_shift_the_mean_by_the_stated_size(share: float, n: int, seed: int) -> None:
    """And their logarithm is linear in the number, so that no weights with this mean are closer to equal ones."""
    numbers = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = (numbers - numbers.mean()) / numbers.std(correction=0)
    shift = share * float(scores.max() if share > 0 else -scores.min())
    weights = tilted_weights(7 - 3 * numbers, -shift)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights @ scores) == pytest.approx(shift, abs=1e-8)
    kept = weights > 1e-290
    slopes = np.polyfit(scores[kept].numpy(), weights[kept].log().numpy(), 1)
    assert np.polyval(slopes, scores[kept].numpy()) == pytest.approx(weights[kept].log().numpy(), abs=1e-6)


def test_of_events_the_share_is_the_stated_one() -> None:
    """A tenth of the rows, shifted by one standard deviation of 0.3."""
    events = (torch.arange(100) < 10).double()
    assert float(tilted_weights(events, 1.0) @ events) == pytest.approx(0.4)
    with pytest.raises(ValueError, match=r"from -0.33 to 3.00 standard deviations"):
        tilted_weights(events, 3.01)
    with pytest.raises(ValueError, match="not all equal"):
        tilted_weights(torch.ones(4), 0.5)


def test_a_stream_changes_where_it_is_told_to() -> None:
    """Suddenly, or by a ramp whose mean grows evenly."""
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    sudden = drifting_rows(weights, start=2000, length=3000, ramp=1, generator=g)
    assert float(sudden[:2000].double().mean()) == pytest.approx(0.5, abs=0.05)
    assert sudden[2000:].all()
    gradual = drifting_rows(weights, start=0, length=6000, ramp=4000, generator=g).double()
    assert [float(part.mean()) for part in gradual[:4000].split(1000)] == pytest.approx(
        [0.5625, 0.6875, 0.8125, 0.9375], abs=0.06
    )
    assert gradual[4000:].all()
    with pytest.raises(ValueError, match="ramp is at least 1, got 5, 3 and 1"):
        drifting_rows(weights, start=5, length=3, ramp=1, generator=g)


def test_a_delay_counts_from_the_first_changed_row() -> None:
    """Alarms before the change are false, and do not count."""
    assert alarm_delay([3, 10, 12], 10) == 1
    assert alarm_delay([3], 10) == math.inf


def test_rows_of_the_table() -> None:
    """False alarms with Garwood's interval; delays beyond the horizon count with it."""
    row = false_alarm_row(3, 200_000, defense="x")
    assert (row["value"], row["n"], row["defense"]) == (pytest.approx(0.15), 200_000, "x")
    assert (row["low"], row["high"]) == pytest.approx((chi2.ppf(0.025, 6) / 40, chi2.ppf(0.975, 8) / 40))
    delay, missed = delay_rows([*range(10, 24), *[math.inf] * 6], 100, attack="sudden")
    assert (delay["value"], delay["low"], delay["high"], delay["n"]) == (19.5, 15, 100, 20)
    assert (missed["metric"], missed["value"]) == ("missed", 0.3)


@pytest.mark.parametrize("mean", [0.3, 4.0])
def test_a_poisson_interval_covers(mean: float) -> None:
    """Exactly: the probability of the counts whose interval holds the mean is at least 95 %."""
    counts = np.arange(60)
    chance = np.exp(-mean + counts * np.log(mean) - [math.lgamma(k + 1) for k in counts])
    holds = [low <= mean <= high for low, high in map(poisson_interval, counts.tolist())]
    assert 0.95 <= chance[holds].sum() < 0.999
    assert poisson_interval(0) == (0, pytest.approx(-math.log(0.025)))


@pytest.mark.parametrize(("n", "places"), [(5, None), (6, (0, 5)), (20, (5, 14)), (100, (39, 60))])
def test_a_median_interval_is_that_of_the_tables(n: int, places: tuple[int, int] | None) -> None:
    """The order statistics of Conover's tables, from values in any order; too few values give no bound."""
    values = [float(v) for v in np.random.default_rng(0).permutation(n)]
    assert median_interval(values) == (places or (-math.inf, math.inf))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: poisson_interval(-1), "at least 0, got -1"),
        (lambda: poisson_interval(1, 95), "confidence"),
        (lambda: median_interval([]), "there must be values"),
        (lambda: median_interval([1, math.nan]), "none NaN"),
    ],
)
def test_what_has_no_interval_is_refused(ask, message) -> None:
    """In one line."""
    with pytest.raises(ValueError, match=message):
        ask()


def test_the_figures_show_every_monitor() -> None:
    """One line or row for each, the wanted bounds, and no negative bar; a monitor without an alarm has no dot."""
    rows = [
        row
        for kind in ("sudden", "gradual")
        for level in (0.5, 1.0)
        for name in ("a", "b")
        for row in delay_rows([10 / level] * 20, 50, defense=name, attack=kind, knob="shift", level=level)
        if row["metric"] == "delay"
    ]
    figure = delay_curves(tidy(rows), 25, "caption")
    assert [axes.get_title() for axes in figure.axes] == ["gradual", "sudden"]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"a", "b"}
    dots = tidy([false_alarm_row(count, 1000, defense=name) for name, count in (("a", 0), ("b", 3))])
    axes = false_alarm_dots(dots, 1, 2, "caption").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.lines[0].get_xdata().tolist() == [30]
