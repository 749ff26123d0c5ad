"""Rates of alarms: counted by hand, and a threshold that keeps its promise on clients it was not chosen on."""

import numpy as np
import pytest
import torch
from torch import Tensor

from aisec_lab.data import Dataset
from aisec_lab.defenses.monitors.watch import QueryMonitor
from aisec_lab.evaluation.monitors import alarm_rates, honest_streams
from aisec_lab.evaluation.table import tidy
from aisec_lab.models import MLP, logits_of


class Told(QueryMonitor):
    """A monitor whose scores are the first number of each query."""

    def scores(self, client: str, x: Tensor, answers: Tensor) -> list[float]:
        return x[:, 0].tolist()


def watching(threshold: float, **streams: list[float]) -> Told:
    monitor = Told(threshold, withhold=False)
    for client, scores in streams.items():
        monitor(client, torch.tensor(scores, dtype=torch.float64)[:, None], torch.zeros(len(scores), 2))
    return monitor


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def test_rates_at_the_monitors_own_threshold_are_counted_over_all_clients():
    """One of two honest clients, two of three attackers, whose first alarms were after 1 and 4 queries."""
    monitor = watching(
        0.5, a=[0.1, 0.2], b=[0.6], x=[0, 0.9, 0.95], y=[0, 0, 0.5, 0.4, 0.7], z=[0.5, -float("inf")]
    )  # fmt: skip
    rows = alarm_rates(monitor, ["a", "b"], ["x", "y", "z"], None, generator=seed(0), study="extraction", data="digits")
    table = tidy(rows).set_index("metric")
    assert table.value.to_dict() == pytest.approx(
        {"detection_tpr": 2 / 3, "detection_fpr": 0.5, "queries_before_alarm": 2.5}
    )
    assert table.n.to_dict() == {"detection_tpr": 3, "detection_fpr": 2, "queries_before_alarm": 2}
    assert set(table.knob) == {"threshold"}
    assert set(table.level) == {0.5}
    assert monitor.alarms == {"b": 0, "x": 1, "y": 4}


@pytest.mark.parametrize("fpr", [0.05, 0.2])
def test_a_chosen_threshold_accuses_no_more_than_was_asked_for(fpr):
    """On average over the choice, whatever the scores' distribution; the clients it was chosen on are not counted."""
    rng, found = np.random.default_rng(0), []
    for trial in range(150):
        honest = {f"h{number}": [score] for number, score in enumerate(rng.lognormal(size=60))}
        rows = alarm_rates(watching(0, **honest, thief=[1e9]), list(honest), ["thief"], fpr, generator=seed(trial))
        by_metric = {row["metric"]: row for row in rows}
        assert by_metric["detection_fpr"]["n"] == 30
        assert by_metric["detection_tpr"]["value"] == 1
        assert (by_metric["detection_fpr"]["knob"], by_metric["detection_fpr"]["level"]) == ("fpr", fpr)
        found.append(by_metric["detection_fpr"]["value"])
    expected = np.floor(31 * fpr) / 31  # of the ranks that a 31st client may have
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(len(found)))


def test_an_attacker_that_never_rings_has_no_time_of_alarm():
    """Nor has one that the monitor could say nothing of."""
    monitor = watching(0, a=[1.0], b=[2.0], silent=[])
    rows = alarm_rates(monitor, ["a", "b"], ["silent"], None, generator=seed(0))
    assert [row["metric"] for row in rows] == ["detection_tpr", "detection_fpr"]
    assert rows[0]["value"] == 0


def test_honest_clients_ask_about_rows_of_the_data_at_most_once_each():
    """In an order of their own, with the model's answers; the generator decides."""
    data = Dataset(torch.rand(40, 5, generator=seed(0)), torch.arange(40) % 3, ("a", "b", "c"), "noise")
    model = MLP((4,))((5,), 3, generator=seed(1)).eval()
    streams = honest_streams(model, data, clients=3, queries=30, generator=seed(2))
    again = honest_streams(model, data, clients=3, queries=30, generator=seed(2))
    assert [stream.client for stream in streams] == ["honest 0", "honest 1", "honest 2"]
    for stream, same in zip(streams, again, strict=True):
        assert torch.equal(stream.x, same.x)
        assert len(stream.x.unique(dim=0)) == 30
        assert (stream.x[:, None] == data.x).all(2).any(1).all()
        assert torch.allclose(stream.answers, logits_of(model, stream.x), atol=1e-5)
    assert not torch.equal(streams[0].x, streams[1].x)
    with pytest.raises(ValueError, match="41 queries of 40 rows: take 1 to 40"):
        honest_streams(model, data, clients=1, queries=41, generator=seed(0))


@pytest.mark.parametrize(
    ("honest", "attackers", "fpr", "message"),
    [
        (["a", "b"], ["c"], None, r"not seen: \['c'\]: replay their streams first"),
        (["a", "b"], [], None, "got 2 and 0"),
        (["a", "b"], ["a"], 0.05, "needs at least 19 rows: 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(honest, attackers, fpr, message):
    """A client that was not seen, no attacker, and fewer honest clients than the rate needs."""
    with pytest.raises(ValueError, match=message):
        alarm_rates(watching(0, a=[1.0], b=[2.0]), honest, attackers, fpr, generator=seed(0))
