"""The true positive rate at a low false positive rate: its value, its interval, and its curve."""

import math

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from scipy.stats import norm

from aisec_lab.evaluation.membership import log_roc_curves, roc_points, tpr_at_fpr


def seed(number):
    return torch.Generator().manual_seed(number)


def scores_of(models, records, spread_models, spread_records, gap, generator):
    """Normal scores with a shift for each model and each record; members' are higher by `gap`."""
    shift = spread_models * torch.randn(models, 1, generator=generator, dtype=torch.float64)
    shift = shift + spread_records * torch.randn(records, generator=generator, dtype=torch.float64)
    members = torch.rand(models, records, generator=generator) < 0.5
    return shift + gap * members + torch.randn(models, records, generator=generator, dtype=torch.float64), members


def test_the_value_is_the_share_above_the_threshold():
    """Counted by hand: at 2 of 10 non-members; a tie that would let a third one in is left out."""
    outside = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    inside = torch.tensor([9.5, 8.5, 7.5, 7.0, 6.5])
    scores, members = torch.cat([outside, inside]), torch.arange(15) >= 10
    assert tpr_at_fpr(scores, members, 0.2, generator=seed(0)).value == 3 / 5  # above 7, which is the third
    scores[1] = 7.0  # two at 7: with one of them the other would come
    assert tpr_at_fpr(scores, members, 0.2, generator=seed(0)).value == 3 / 5
    scores[0] = scores[1] = scores[2] = 7.0
    assert tpr_at_fpr(scores, members, 0.2, generator=seed(0)).value == 3 / 5
    scores[0] = scores[1] = scores[2] = 10.0
    assert tpr_at_fpr(scores, members, 0.2, generator=seed(0)) == (0, 0, pytest.approx(0.8, abs=0.3))


@pytest.mark.parametrize(("spread_models", "spread_records"), [(0.0, 0.0), (0.0, 0.8), (0.6, 0.0)])
def test_the_interval_covers_the_true_rate(spread_models, spread_records):
    """120 experiments of known rate, Phi(gap / s - Phi^-1(1 - fpr)), whose scores move together or not.

    A binomial interval, for which the threshold is given, misses the rate in a fifth of them and more.
    """
    gap, fpr, runs, generator = 1.5, 0.02, 120, seed(0)
    s = math.sqrt(1 + spread_models**2 + spread_records**2)
    true, covered, naive = norm.cdf(gap / s - norm.isf(fpr)), 0, 0
    for _ in range(runs):
        scores, members = scores_of(24, 120, spread_models, spread_records, gap, generator)
        value, low, high = tpr_at_fpr(scores, members, fpr, generator=generator, resamples=150)
        covered += low <= true <= high
        naive += abs(value - true) < 1.96 * math.sqrt(value * (1 - value) / int(members.sum()))
    assert covered >= 0.95 * runs - 3 * math.sqrt(0.95 * 0.05 * runs)  # not below 107
    assert naive < 0.8 * runs


@pytest.mark.parametrize("records", [60, 240, 1000])
@pytest.mark.parametrize("fpr", [0.05, 0.1])
@pytest.mark.parametrize("gap", [0.0, 1.5, 4.0])
def test_the_interval_of_one_model_covers_the_true_rate(records, fpr, gap):
    """However few records there are, and where nearly none or all members are found: 200 experiments each."""
    true, generator, covered, runs = norm.cdf(gap - norm.isf(fpr)), seed(0), 0, 200
    for _ in range(runs):
        scores, members = scores_of(1, records, 0.0, 0.0, gap, generator)
        _, low, high = tpr_at_fpr(scores, members, fpr, generator=generator, resamples=20)
        covered += low <= true <= high
    assert covered >= 0.95 * runs - 3 * math.sqrt(0.95 * 0.05 * runs)  # not below 181


def test_the_interval_of_one_model_is_no_wider_than_twice_the_normal_one():
    scores, members = scores_of(1, 4000, 0.0, 0.0, 1.5, seed(0))
    value, low, high = tpr_at_fpr(scores, members, 0.05, generator=seed(0))
    assert high - low < 2 * 2 * 1.96 * math.sqrt(value * (1 - value) / 2000 + 2.4**2 * 0.05 * 0.95 / 2000)


def test_copies_tell_nothing_new_and_the_generator_is_all_its_chance():
    """A model's scores twenty times over are no more than twice over; twenty models of their own are."""
    scores, members = scores_of(20, 400, 0.0, 0.0, 1.5, seed(1))
    rates = {
        "one": tpr_at_fpr(scores[:1].repeat(2, 1), members[:1].repeat(2, 1), 0.05, generator=seed(2), resamples=300),
        "copies": tpr_at_fpr(
            scores[:1].repeat(20, 1), members[:1].repeat(20, 1), 0.05, generator=seed(2), resamples=300
        ),
        "twenty": tpr_at_fpr(scores, members, 0.05, generator=seed(2), resamples=300),
        "once more": tpr_at_fpr(scores, members, 0.05, generator=seed(2), resamples=300),
    }
    width = {name: rate.high - rate.low for name, rate in rates.items()}
    assert rates["twenty"] == rates["once more"]
    assert rates["copies"].value == rates["one"].value
    assert width["copies"] == pytest.approx(width["one"], rel=0.25)
    assert width["twenty"] < 0.6 * width["one"]


def test_one_model_is_a_row_of_scores():
    scores, members = scores_of(1, 4000, 0.0, 0.0, 2.0, seed(3))
    rate = tpr_at_fpr(scores[0], members[0], 0.05, generator=seed(0))
    assert rate == tpr_at_fpr(scores, members, 0.05, generator=seed(0))
    assert rate.low < norm.cdf(2 - norm.isf(0.05)) < rate.high


@pytest.mark.parametrize(
    ("scores", "members", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.bool), "must have one shape"),
        (torch.full((2, 3), torch.nan), torch.ones(2, 3, dtype=torch.bool), "6 NaN"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), "0 members"),
        (torch.zeros(1, 60), torch.arange(60)[None] < 10, "0.01 of 50 non-members is less than one of them"),
    ],
)
def test_scores_without_an_answer_are_refused(scores, members, message):
    with pytest.raises(ValueError, match=message):
        tpr_at_fpr(scores, members, 0.01, generator=seed(0))


def test_the_points_are_of_the_curve_and_not_many():
    """Every point is a threshold's two rates; the first and last rates are there, and few for each decade."""
    scores, members = scores_of(20, 3000, 0.0, 0.0, 1.0, seed(4))
    points = roc_points(scores, members)
    outside, inside = (np.sort(scores[side].numpy()) for side in (~members, members))
    for fpr, tpr in points.iloc[1::25].itertuples(index=False):
        threshold = outside[::-1][round(fpr * len(outside)) - 1]
        found = np.mean(inside >= threshold)
        assert found <= tpr + 1e-6
        assert tpr - found < 0.002
    assert points.fpr.is_monotonic_increasing
    assert points.tpr.is_monotonic_increasing
    assert points.fpr.iloc[-1] == points.tpr.iloc[-1] == 1
    assert points.fpr[points.fpr > 0].min() == pytest.approx(1 / len(outside), rel=1e-3)
    assert 100 < len(points) < 300


def test_the_figure_is_logarithmic_on_both_axes_and_shows_guessing():
    scores, members = scores_of(4, 500, 0.0, 0.0, 1.0, seed(5))
    figure = log_roc_curves({"loss": roc_points(scores, members)}, "what is seen")
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["loss"]
    assert any(np.array_equal(line.get_xdata(), line.get_ydata()) for line in axes.lines)
    plt.close(figure)
