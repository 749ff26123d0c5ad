"""The tuner: the stated share of alarms, its limits, and what an attacker can do to it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aisec_lab.guard import ThresholdTuner


def seed(number):
    return torch.Generator().manual_seed(number)


def tuner(**changes):
    return ThresholdTuner(
        **{"name": "energy", "threshold": 0.0, "rate": 0.05, "step": 0.05, "low": -20.0, "high": 20.0, "every": 1}
        | {"most": 10**9}
        | changes
    )


@given(st.lists(st.floats(-15, 15), min_size=1, max_size=300), st.floats(0.02, 0.5), st.floats(0.01, 2.0))
@settings(max_examples=100, deadline=None)
def test_the_share_of_alarms_obeys_the_bound_for_any_scores(scores, rate, step):
    """Theorem 1: scores in an interval, and limits that never bind: |alarms / T - rate| <= (b + step) / (step T)."""
    tested, alarms = tuner(rate=rate, step=step), 0
    for score in scores:
        alarms += score > tested.threshold
        tested.update(torch.tensor([score], dtype=torch.float64), client="a")
    assert abs(alarms / len(scores) - rate) <= (30 + step) / (step * len(scores)) + 1e-9


def test_traffic_that_moves_is_followed_and_each_change_is_recorded():
    """Normal scores whose mean moves by three: a fixed threshold alarms at half of them, the tuned one at its rate."""
    changes = []
    tested = tuner(every=100, record=changes.append, threshold=1.645)
    scores = torch.randn(20_000, generator=seed(0)) + torch.linspace(0, 3, 20_000)
    alarms = 0
    for part in scores.split(100):
        alarms += int((part > tested.threshold).sum())
        tested.update(part, client="a")
    assert (scores > 1.645).double().mean() > 0.3
    assert alarms / len(scores) == pytest.approx(0.05, abs=0.01)
    assert [change.after for change in changes[:-1]] == [change.before for change in changes[1:]]
    assert changes[-1].after == tested.threshold
    assert sum(change.since for change in changes) == 20_000
    assert changes[0].why.endswith("alarms in 100 rows, 0.05 of them are stated")


def test_the_threshold_stays_inside_its_limits_and_says_when_it_is_there():
    changes = []
    tested = tuner(high=0.5, record=changes.append)
    tested.update(torch.full((100,), math.inf), client="a")
    assert tested.threshold == 0.5
    assert changes[-1].why.endswith("at its limit")
    tested.update(torch.full((5_000,), -math.inf), client="a")
    assert -20 <= tested.threshold < 0


def test_one_client_cannot_walk_the_threshold_alone():
    """It moves it by as much as its share of each window allows; many clients together move it further."""
    alone, together = (tuner(every=100, most=10) for _ in range(2))
    for number in range(2_000):
        alone.update(torch.tensor([9.0]), client="thief")
        together.update(torch.tensor([9.0]), client=f"account {number % 40}")
    assert alone.counted == 200
    assert together.counted == 2_000
    assert alone.threshold <= 200 * 0.05 + 1e-9
    assert together.threshold > alone.threshold / 2


def test_a_change_that_cannot_be_recorded_does_not_take_effect():
    def fail(change):
        raise OSError("the disk is full")

    tested = tuner(record=fail)
    with pytest.raises(OSError, match="disk is full"):
        tested.update(torch.tensor([9.0]), client="a")
    assert tested.threshold == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 30.0}, "low <= threshold <= high"),
        ({"high": math.inf}, "low <= threshold <= high"),
        ({"rate": 0.0}, "rate must lie"),
        ({"step": 0.0}, "step be positive"),
        ({"every": 0}, "every and most"),
        ({"most": 0}, "every and most"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tuner(**settings)
