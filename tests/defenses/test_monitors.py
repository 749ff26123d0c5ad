"""Monitors: second implementations, what they cannot be told by, and the attacks that they are for."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import shapiro
from torch import Tensor

from aisec_lab.attacks import L2, HopSkipJump, Linf, Oracle, Square
from aisec_lab.attacks.extraction.jacobian import JacobianAugmentation
from aisec_lab.defenses.monitors.blacklight import REMEMBERED, Blacklight
from aisec_lab.defenses.monitors.prada import PRADA, normality
from aisec_lab.defenses.monitors.rate_limiter import RateLimiter
from aisec_lab.defenses.monitors.watch import QueryMonitor, first_alarm
from aisec_lab.evaluation.monitors import QueryRecorder, alarm_rates, honest_streams, replay
from aisec_lab.models import MLP, Fit

KEY = bytes(range(16))


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def two_classes(x: Tensor) -> Tensor:
    """Answers (N, 2): the class is the first number's, above a half or not."""
    first = x.flatten(1)[:, :1] > 0.5
    return torch.cat([~first, first], 1).double()


def prada_by_hand(x: np.ndarray, labels: list[int], every: int) -> list[tuple[int, float]]:
    """W at each test, as the paper's algorithm goes: one query at a time, one distance at a time."""
    kept: dict[int, list[np.ndarray]] = {}
    steps: dict[int, list[float]] = {}
    limit: dict[int, float] = {}
    distances: list[float] = []
    tests = []
    for number, (row, label) in enumerate(zip(x, labels, strict=True)):
        if label not in kept:
            kept[label], steps[label], limit[label] = [row], [0.0], 0.0
        else:
            nearest = min(float(np.sqrt(((row - other) ** 2).sum())) for other in kept[label])
            distances.append(nearest)
            if nearest > limit[label]:
                kept[label].append(row)
                steps[label].append(nearest)
                limit[label] = max(limit[label], np.mean(steps[label]) - np.std(steps[label]))
        if (number + 1) % every == 0 and len(distances) > 100:
            mean, deviation = np.mean(distances), np.std(distances)
            near = [each for each in distances if mean - 3 * deviation <= each <= mean + 3 * deviation]
            tests.append((number, shapiro(near).statistic))
    return tests


@pytest.mark.parametrize("every", [1, 10])
def test_prada_is_its_algorithm(splits, every):
    """Every record of the score is the highest 1 - W so far, and the alarm is the first W below delta."""
    x = splits.train.x[:180]
    answers = two_classes(x.flip(3))
    tests = prada_by_hand(x.flatten(1).double().numpy(), answers.argmax(1).tolist(), every)
    monitor = PRADA(0.97, every=every)
    for part in (slice(0, 7), slice(7, 130), slice(130, 180)):
        monitor("alice", x[part], answers[part])
    highest: list[tuple[int, float]] = []
    for number, w in tests:
        if not highest or 1 - w > highest[-1][1]:
            highest.append((number, 1 - w))
    assert [number for number, _ in monitor.records["alice"]] == [number for number, _ in highest]
    assert np.allclose([score for _, score in monitor.records["alice"]], [score for _, score in highest])
    assert monitor.alarms.get("alice") == next((number for number, w in tests if w < 0.97), None)
    assert len(tests) > 60 / every


def test_normality_does_not_look_at_what_is_far_out():
    """One distance of a thousand; and distances that are all equal, a query asked again and again, are not normal."""
    values = np.random.default_rng(0).normal(3, 0.1, 400)
    assert normality(values) > 0.99
    far = np.append(values, 1000.0)
    assert normality(far) == shapiro(values).statistic
    assert shapiro(far).statistic < 0.1
    assert normality(np.repeat([1.0, 2.0], 100)) < 0.7
    assert normality(np.zeros(200)) == 0
    monitor = PRADA(every=1)
    monitor("mallory", torch.full((200, 12), 0.3), torch.eye(2)[:1].expand(200, 2))
    assert monitor.alarms == {"mallory": 101}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.integers(0, 3)), max_size=30), st.integers(1, 9))
def test_a_rate_counts_each_clients_rows_within_the_window(calls, window):
    """Against counting anew at each row; the alarm is the first row that is one too many."""
    times = list(itertools.accumulate(step for _, _, step in calls))
    clock = iter(times)
    monitor = RateLimiter(5, window, clock=lambda: next(clock))
    asked: dict[str, list[int]] = {"a": [], "b": []}
    expected: dict[str, int] = {}
    for (client, rows, _), now in zip(calls, times, strict=True):
        monitor(client, torch.zeros(rows, 3), torch.zeros(rows, 2))
        for _ in range(rows):
            asked[client].append(now)
            if sum(now - window < time <= now for time in asked[client]) > 5:
                expected.setdefault(client, len(asked[client]) - 1)
    assert monitor.alarms == expected


def test_a_fingerprint_is_the_largest_hashes_of_all_windows():
    """Windows that are equal count once; another key has other hashes."""
    row = np.array([0, 1, 2, 3, 0, 1, 2, 3, 4, 5], dtype=np.int32)
    monitor = Blacklight(KEY, window=3, hashes=50)
    assert len(monitor.fingerprint(row)) == len({tuple(row[start : start + 3]) for start in range(8)}) == 6
    few = Blacklight(KEY, window=3, hashes=2).fingerprint(row)
    assert few == set(sorted(monitor.fingerprint(row))[-2:])
    assert not monitor.fingerprint(row) & Blacklight(b"other", window=3).fingerprint(row)


def test_similarity_is_the_largest_overlap_with_a_former_query(splits):
    """Against keeping all fingerprints and comparing with each; a small change keeps the windows it does not touch."""
    x = splits.train.x[:40]
    near = x.clone()
    near[:, 0, 0, 2] = 1 - near[:, 0, 0, 2]  # number 2 lies in three windows of 45
    stream = torch.cat([x, near, x + 0.001])
    monitor = Blacklight(KEY)
    steps = (stream.flatten(1) * 255 / 50).round().int().numpy()
    prints = [monitor.fingerprint(row) for row in steps]
    expected = [
        max((len(each & other) / len(each) for other in prints[:number]), default=0.0)
        for number, each in enumerate(prints)
    ]
    assert list(monitor.scores("alice", stream, torch.zeros(120, 10))) == pytest.approx(expected)
    assert min(expected[40:80]) >= 0.8
    assert expected[80:] == [1.0] * 40
    assert max(expected[:40]) < 0.5
    assert max(len(queries) for queries in monitor._queries.values()) <= REMEMBERED


def test_similarity_is_by_client_unless_shared(splits):
    """An attacker with two accounts is seen by the shared one only."""
    x, answers = splits.train.x[:1], torch.zeros(1, 10)
    alone, shared = Blacklight(KEY), Blacklight(KEY, shared=True)
    for monitor in (alone, shared):
        monitor("mallory", x, answers)
        monitor("mallory's other account", x, answers)
    assert alone.alarms == {}
    assert shared.alarms == {"mallory's other account": 0}


MONITORS = [PRADA(0.99, every=3), Blacklight(KEY, 0.0)]


@pytest.mark.parametrize("monitor", MONITORS, ids=lambda monitor: type(monitor).__name__)
def test_how_queries_are_batched_and_who_else_asks_changes_nothing(monitor, splits):
    """The same records for a client that asks row by row, between the queries of another."""
    x, answers = splits.train.x[:150], two_classes(splits.train.x[:150])
    monitor("at once", x, answers)
    for row in range(150):
        monitor("row by row", x[row : row + 1], answers[row : row + 1])
        monitor("another", 1 - x[row : row + 1], answers[row : row + 1])
    assert monitor.records["at once"] == monitor.records["row by row"]
    assert monitor.alarms["at once"] == monitor.alarms["row by row"]
    assert first_alarm(monitor.records["at once"], monitor.threshold) == monitor.alarms["at once"]


def test_a_client_that_rang_is_locked_out_and_nobody_else(classifier, splits):
    """Its answer is withheld from that call on; watching alone withholds nothing."""
    ticks = itertools.count()
    monitor = RateLimiter(10, 1000, clock=lambda: next(ticks), withhold=True)
    alice, mallory = (Oracle(classifier, client=client, monitors=[monitor]) for client in ("alice", "mallory"))
    x = splits.test.x
    mallory(x[:8])
    with pytest.raises(
        PermissionError, match="RateLimiter withholds the answer: mallory raised an alarm at its query 10 and is"
    ):
        mallory(x[:4])
    with pytest.raises(PermissionError, match="locked out"):
        mallory(x[:1])
    assert alice(x[:10]).shape == (10, 10)
    assert monitor.alarms == {"mallory": 10}
    assert monitor.seen == {"mallory": 13, "alice": 10}
    watching = RateLimiter(1, 1000, clock=lambda: next(ticks))
    assert Oracle(classifier, monitors=[watching])(x[:5]).shape == (5, 10)
    assert watching.alarms == {"attacker": 1}


@pytest.mark.parametrize("attack", [Square(Linf(0.1), queries=100), HopSkipJump(L2(0), queries=200)], ids=repr)
def test_an_attack_that_searches_is_stopped_by_similarity(attack, classifier, splits):
    """After a few queries, whatever it has a budget for."""
    monitor = Blacklight(KEY, withhold=True)
    oracle = Oracle(classifier, monitors=[monitor])
    with pytest.raises(PermissionError, match="Blacklight withholds the answer: attacker raised an alarm"):
        attack(oracle, splits.test.x[:3], splits.test.y[:3], generator=seed(0))
    assert monitor.alarms["attacker"] < 60


@pytest.fixture(scope="module")
def extractions(classifier, splits):
    """What five thieves with steps of the Jacobian asked."""
    recorder = QueryRecorder()
    attack = JacobianAugmentation(architecture=MLP((32,)), fit=Fit(epochs=2), budget=240, seeds=60)
    for number in range(5):
        oracle = Oracle(classifier, client=f"thief {number}", monitors=[recorder])
        attack(oracle, splits.test, generator=seed(number))
    return recorder.streams()


def test_extraction_by_steps_is_told_from_honest_clients(classifier, splits, extractions):
    """At a threshold chosen on half of the honest clients, all thieves ring soon and hardly any of the other half."""
    honest = honest_streams(classifier, splits.train, clients=50, queries=240, generator=seed(0))
    monitor = PRADA()
    replay(monitor, [*honest, *extractions], batch_size=240)
    rows = alarm_rates(
        monitor,
        [stream.client for stream in honest],
        [stream.client for stream in extractions],
        0.05,
        generator=seed(1),
        study="extraction",
    )
    found = {row["metric"]: row for row in rows}
    assert [len(stream.x) for stream in extractions] == [240] * 5
    assert found["detection_tpr"]["value"] == 1
    assert found["detection_fpr"]["value"] < 0.2
    assert found["detection_fpr"]["n"] == 25
    assert 100 < found["queries_before_alarm"]["value"] < 200


def test_a_replay_is_what_a_monitor_sees_live(classifier, splits):
    """Record by record; the answers are those that were handed out."""
    recorder, live, later = QueryRecorder(), Blacklight(KEY), Blacklight(KEY)
    oracle = Oracle(classifier, labels_only=True, monitors=[recorder, live])
    Square(Linf(0.1), queries=30)(oracle, splits.test.x[:3], splits.test.y[:3], generator=seed(0))
    (stream,) = recorder.streams()
    replay(later, [stream])
    assert later.records == live.records
    assert len(stream.x) == oracle.queries
    assert torch.equal(stream.answers.sum(1), torch.ones(len(stream.x)))
    with pytest.raises(ValueError, match="replay with withhold=False"):
        replay(Blacklight(KEY, withhold=True), [stream])


def test_every_monitor_is_one(splits):
    """An empty call says nothing and is no error."""
    monitors: list[QueryMonitor] = [PRADA(), Blacklight(KEY), RateLimiter(1, 1, clock=lambda: 0.0)]
    for monitor in monitors:
        monitor("nobody", splits.test.x[:0], torch.zeros(0, 10))
        assert monitor.records == {"nobody": []}
        assert monitor.alarms == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PRADA(1.0), r"delta must lie in \(0, 1\)"),
        (lambda: PRADA(every=0), "every be at least 1, got 0.95 and 0"),
        (lambda: RateLimiter(0, 1, clock=lambda: 0.0), "rows must be at least 1"),
        (lambda: Blacklight("a" * 32), r"1 to 64 bytes, got a str: take secrets.token_bytes\(32\)"),
        (lambda: Blacklight(None), "1 to 64 bytes, got a NoneType"),
        (lambda: Blacklight(b""), r"1 to 64 bytes, got 0: take secrets.token_bytes\(32\)"),
        (lambda: Blacklight(KEY, 1.0), r"threshold must lie in \[0, 1\)"),
        (lambda: Blacklight(KEY)("a", torch.zeros(1, 19), torch.zeros(1, 2)), "does not fit into inputs of 19"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    """With what was given and what is accepted."""
    with pytest.raises(ValueError, match=message):
        make()


def test_a_clock_that_goes_back_is_refused():
    """A window of time has no meaning then."""
    clock = iter([5.0, 4.0])
    monitor = RateLimiter(1, 1, clock=lambda: next(clock))
    monitor("a", torch.zeros(1, 3), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="went back from 5.0 to 4.0"):
        monitor("a", torch.zeros(1, 3), torch.zeros(1, 2))
