"""River's detectors at the settings that a stated rate of false alarms gives.

The rates of ADWIN are not proved, so that they are held by simulation here: on light and heavy tails, on rare events,
and on values that are nearly always the same.
"""

from collections.abc import Callable

import pytest
import torch
from river.drift import ADWIN, KSWIN
from torch import Tensor

from aisec_lab.guard import ADWINMonitor, KSWINMonitor
from tests.guard.counts import alarm_count, may_be

STREAMS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "normal": lambda n, g: torch.randn(n, generator=g),
    "uniform": lambda n, g: torch.rand(n, generator=g),
    "heavy tails": lambda n, g: torch.randn(n, generator=g).mul(2).exp(),
    "rare events": lambda n, g: (torch.rand(n, generator=g) < 0.05).float(),
    "fair coins": lambda n, g: (torch.rand(n, generator=g) < 0.5).float(),
    "confidences": lambda n, g: torch.rand(n, generator=g) ** 0.05,
}


@pytest.mark.parametrize("stated", [1.0, 100.0])
@pytest.mark.parametrize("name", STREAMS)
def test_adwin_alarms_at_most_as_often_as_stated(name: str, stated: float) -> None:
    """300,000 rows of each distribution, in streams of two lengths."""
    g = torch.Generator().manual_seed(0)
    draw = lambda n: STREAMS[name](n, g)  # noqa: E731
    make = lambda: ADWINMonitor(draw(300), false_alarms=stated)  # noqa: E731
    found = alarm_count(make, draw, streams=15, rows=10_000) + alarm_count(make, draw, streams=75, rows=2000)
    assert may_be(found, 30 * stated)


@pytest.mark.parametrize("name", ["normal", "rare events"])
def test_kswin_alarms_at_most_as_often_as_stated(name: str) -> None:
    """At so large a rate that a few hundred tests show it, of few rows, so that successive tests share none."""
    g = torch.Generator().manual_seed(0)
    draw = lambda n: STREAMS[name](n, g)  # noqa: E731
    make = lambda: KSWINMonitor(recent=20, window=60, false_alarms=20.0, generator=g)  # noqa: E731
    found = alarm_count(make, draw, streams=5, rows=10_000)
    assert may_be(found, 5 * 20)
    assert name != "normal" or found > 0


def test_adwin_is_rivers() -> None:
    """Fed with the scaled numbers: the same alarms, in one call and in many."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(1500, generator=g, dtype=torch.float64)
    x[700:] += 2
    reference = torch.tensor([-4.0, 5.0])
    detector, expected = ADWIN(delta=0.0032), []
    for row, value in enumerate(((x + 4) / 9).clamp(0, 1).tolist()):
        detector.update(value)
        if detector.drift_detected:
            expected.append(row)
    assert expected
    assert expected[0] > 700
    assert ADWINMonitor(reference, false_alarms=1.0).update(x) == expected
    parts = ADWINMonitor(reference, false_alarms=1.0)
    assert [row for part in x.split(37) for row in parts.update(part)] == expected


def test_kswin_is_rivers_at_every_fiftieth_row() -> None:
    """River's own detector, filled with the rows before, rejects where the monitor alarms first, and nowhere before."""
    g = torch.Generator().manual_seed(2)
    x = torch.randn(1000, generator=g)
    x[500:] += 2
    alarms = KSWINMonitor(recent=40, window=120, false_alarms=5.0, generator=torch.Generator().manual_seed(3)).update(x)
    seed = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(3))) + 1
    detector, first = KSWIN(0.025, window_size=120, stat_size=40, seed=seed), None
    for last in range(49, 1000, 50):
        detector.window.extend(x[last - 49 : last].tolist())
        detector.update(float(x[last]))
        if detector.drift_detected:
            first = last
            break
    assert alarms[0] == first
    assert 500 < alarms[0] <= 599


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: ADWINMonitor(torch.ones(5)), "two different values"),
        (lambda: ADWINMonitor(torch.arange(5.0), false_alarms=400), "below 312.5, got 5 values and 400"),
        (lambda: ADWINMonitor(torch.arange(5.0)).update(torch.ones(2, 2)), r"shape \(N,\), got torch.float32 \(2, 2\)"),
        (lambda: KSWINMonitor(recent=100, window=150, generator=torch.Generator()), "got 100, 150 and 1.0"),
        (lambda: KSWINMonitor(false_alarms=200, generator=torch.Generator()), "false alarms below 200"),
    ],
)
def test_settings_out_of_range_are_refused(ask: Callable[[], object], message: str) -> None:
    """In one line."""
    with pytest.raises(ValueError, match=message):
        ask()
