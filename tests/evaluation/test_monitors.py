"""Rates of alarms: counted by hand, and a threshold that keeps its promise on clients it was not chosen on."""

import numpy as np
import pytest
import torch
from torch import Tensor

from aisec_lab.attacks import L2, EvadeDetector, HopSkipJump
from aisec_lab.data import Dataset
from aisec_lab.defenses.monitors.watch import QueryMonitor
from aisec_lab.evaluation.monitors import QueryStream, alarm_rates, alarm_threshold, honest_streams
from aisec_lab.evaluation.table import tidy
from aisec_lab.evaluation.watched_attacks import accounts_watched, attack_watched, honest_alarms
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


class Plane(torch.nn.Module):
    """Class 1 where the first pixel is above a half; the logits are the pixel and a half."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.full_like(x[:, 0, 0, 0], 0.5), x[:, 0, 0, 0]], 1)


class Every(QueryMonitor):
    """Flags each query from a certain one of a client on: the score is its number."""

    def scores(self, client: str, x: Tensor, answers: Tensor) -> list[float]:
        first = self.seen[client] - len(x)
        return [float(number) for number in range(first, first + len(x))]


def test_an_attack_through_a_monitor_is_counted_by_row_and_by_account():
    """All rows without a monitor; none if all but the clean rows are rejected; the rows inside the ball otherwise."""
    x = torch.full((8, 1, 2, 2), 0.4)
    x[4:] = 0.1  # too far from the boundary
    rows = Dataset(x, torch.zeros(8, dtype=torch.int64), ("low", "high"), "plane")
    attack = HopSkipJump(L2(0.2), queries=60, samples=5, goal=EvadeDetector())
    model = Plane().eval()

    def found(make):
        given = {"accounts": 4, "generator": seed(0), "study": "guard", "attack": "hsj", "model": "plane"}
        return tidy(attack_watched(attack, model, rows, make, **given)).set_index("metric")

    alone = found(lambda: None)
    assert alone.value[["asr", "rejected_share", "detection_tpr"]].tolist() == [0.5, 0, 0]
    assert "queries_before_alarm" not in alone.index
    assert alone.n[["asr", "detection_tpr"]].tolist() == [8, 4]
    strict = found(lambda: Every(1.5, withhold=False))
    assert strict.value[["asr", "detection_tpr", "queries_before_alarm"]].tolist() == [0, 1, 2]
    assert strict.value["rejected_share"] == pytest.approx(1 - 2 / 120)
    assert strict.queries["asr"] == 60
    assert (strict.low["queries_before_alarm"], strict.high["queries_before_alarm"]) == (2, 2)
    lenient = found(lambda: Every(1e9, withhold=False))
    assert lenient.value[["asr", "rejected_share", "detection_tpr"]].tolist() == [0.5, 0, 0]
    with pytest.raises(ValueError, match="a multiple of its 3 accounts, got 8"):
        attack_watched(attack, model, rows, lambda: None, accounts=3, generator=seed(0))
    wrong = Dataset(x, torch.ones(8, dtype=torch.int64), ("low", "high"), "plane")
    with pytest.raises(ValueError, match="correctly classified rows"):
        attack_watched(attack, model, wrong, lambda: None, accounts=4, generator=seed(0))


def test_accounts_share_the_queries_in_turn_and_are_one_client_if_linked():
    """Twelve queries, an alarm at a client's sixth: one account raises it, four do not, unless they are linked."""
    stream = QueryStream("thief", torch.zeros(12, 1), torch.zeros(12, 2))

    def found(accounts, linked):
        rows = accounts_watched(stream, lambda: Every(4.5, withhold=False), accounts=accounts, linked=linked)
        return {row["metric"]: (row["value"], row["n"]) for row in rows}

    assert found(1, False) == {"detection_tpr": (1, 1), "queries_before_alarm": (5, 1)}
    assert found(2, False) == {"detection_tpr": (1, 2), "queries_before_alarm": (10, 1)}
    assert found(4, False) == {"detection_tpr": (0, 4)}
    assert found(4, True) == {"detection_tpr": (1, 1), "queries_before_alarm": (5, 1)}
    with pytest.raises(ValueError, match="one of 12 queries, got 13 accounts"):
        accounts_watched(stream, lambda: Every(1, withhold=False), accounts=13, linked=False)


def test_a_threshold_is_set_on_some_honest_clients_and_the_alarms_of_others_are_counted():
    """Of nineteen scores 1..19 the largest is the threshold for 5 %; a client without a score has none to exceed it."""
    monitor = watching(0, **{f"h{number}": [float(number)] for number in range(1, 20)}, silent=[])
    names = [f"h{number}" for number in range(1, 20)]
    assert alarm_threshold(monitor, names, 0.05) == 19
    assert alarm_threshold(monitor, [*names, "silent"], 0.1) == 18
    (row,) = honest_alarms(watching(2, a=[1, 3], b=[2], c=[0]), ["a", "b", "c"], study="guard")
    assert (row["metric"], row["value"], row["n"]) == ("detection_fpr", pytest.approx(1 / 3), 3)
