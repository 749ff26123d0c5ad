"""Monitors of windows keep the rate of false alarms that they state, and notice what they are for."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, fisher_exact, ks_1samp, uniform
from scipy.stats import energy_distance as energy_of_scipy
from torch import Tensor

from aisec_lab.guard import (
    ClassBalanceMonitor,
    DummyMonitor,
    ErrorRateMonitor,
    LatencyMonitor,
    PermutationMonitor,
    RateMonitor,
    StreamMonitor,
    confidence,
    energy_distance,
    entropy,
    largest_mean_difference,
    sequential_p_value,
)
from tests.guard.counts import alarm_count, may_be

STATED = 40.0  # false alarms in 10,000 rows: so many that a few thousand rows show them
CLASSES = torch.tensor([0.05, 0.15, 0.3, 0.5])


def permutation(draw: Callable[[int], Tensor], g: torch.Generator, **settings: object) -> PermutationMonitor:
    return PermutationMonitor(draw(60), window=20, false_alarms=STATED, generator=g, **settings)


def cases(g: torch.Generator) -> dict[str, tuple[Callable[[], StreamMonitor], Callable[[int], Tensor]]]:
    """Monitors, each with the stream that it watches."""
    normal = partial(torch.randn, generator=g)
    ties = lambda n: torch.randint(3, (n,), generator=g).double() ** 9  # noqa: E731
    vectors = lambda n: torch.randn(n, 5, generator=g).exp()  # noqa: E731
    events = lambda n: torch.rand(n, generator=g) < 0.1  # noqa: E731
    classes = lambda n: torch.multinomial(CLASSES, n, replacement=True, generator=g)  # noqa: E731
    waits = lambda n: -torch.rand(n, generator=g).log()  # noqa: E731
    at = {"window": 40, "false_alarms": STATED}
    limit = -float(np.log(0.1))  # one wait in ten is longer
    return {
        "energy": (lambda: permutation(normal, g), normal),
        "energy, ties": (lambda: permutation(ties, g), ties),
        "energy, vectors": (lambda: permutation(vectors, g), vectors),
        "means, vectors": (lambda: permutation(vectors, g, statistic=largest_mean_difference), vectors),
        "rate": (lambda: RateMonitor(events(100), **at), events),
        "class balance": (lambda: ClassBalanceMonitor(classes(100), 4, **at), classes),
        "latency": (lambda: LatencyMonitor(limit, 0.1, **at), waits),
    }


@pytest.mark.parametrize("name", cases(torch.Generator()))
def test_without_a_change_a_monitor_alarms_as_often_as_it_states(name: str) -> None:
    """Over fresh references, whatever the distribution; permutation tests without ties do not alarm less often."""
    make, draw = cases(torch.Generator().manual_seed(0))[name]
    found = alarm_count(make, draw, streams=30, rows=1000)
    expected = 30 * 1000 / 10_000 * STATED
    assert may_be(found, expected)
    if name in ("energy", "energy, vectors", "means, vectors"):
        assert found > expected - 4 * expected**0.5


def test_permutation_p_values_are_uniform() -> None:
    """A test that never stops gives the rank of the real division: each rank is equally likely."""
    generator = torch.Generator().manual_seed(0)
    p = [
        sequential_p_value(
            torch.randn(30, 2, generator=generator, dtype=torch.float64),
            torch.randn(10, 2, generator=generator, dtype=torch.float64),
            energy_distance,
            divisions=400,
            exceedances=400,
            generator=generator,
        )
        for _ in range(250)
    ]
    smeared = np.array(p) - np.random.default_rng(0).random(len(p)) / 400
    assert ks_1samp(smeared, uniform.cdf).pvalue > 1e-3


def test_a_test_that_stops_early_decides_as_the_full_one() -> None:
    """The sequential p-value is at most k / n exactly if fewer than k of all n - 1 divisions are as extreme."""
    g = torch.Generator().manual_seed(1)
    for shift in (0.0, 0.5, 1.0):
        reference = torch.randn(40, 1, generator=g, dtype=torch.float64)
        rows = torch.randn(15, 1, generator=g, dtype=torch.float64) + shift
        early, full = (
            sequential_p_value(
                reference,
                rows,
                energy_distance,
                divisions=200,
                exceedances=k,
                generator=torch.Generator().manual_seed(2),
            )
            for k in (4, 200)
        )
        assert (early <= 4 / 200) == (full <= 4 / 200)
        assert early >= full or early > 4 / 200


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 2**31))
def test_statistics_are_their_definitions(part: int, rest: int, columns: int, seed: int) -> None:
    """By loops over all pairs, for one column also scipy's, with equal values among them."""
    g = torch.Generator().manual_seed(seed)
    pooled = torch.randint(-3, 4, (part + rest, columns), generator=g).double()
    parts = torch.stack([torch.randperm(part + rest, generator=g)[:part] for _ in range(3)])
    energies, means = energy_distance(pooled, parts), largest_mean_difference(pooled, parts)
    for places, energy, mean in zip(parts, energies, means, strict=True):
        inside = torch.zeros(part + rest, dtype=torch.bool)
        inside[places] = True
        x, y = pooled[inside], pooled[~inside]
        between, within, without = (torch.cdist(a, b).mean() for a, b in ((x, y), (x, x), (y, y)))
        assert float(energy) == pytest.approx(float(2 * between - within - without), abs=1e-9)
        if columns == 1:
            assert float(energy) == pytest.approx(energy_of_scipy(x[:, 0], y[:, 0]) ** 2, abs=1e-9)
        spread = pooled.std(0, correction=0)
        moved = (x.mean(0) - y.mean(0)).abs()[spread > 0] / spread[spread > 0]
        assert float(mean) == pytest.approx(float(moved.max()) if len(moved) else 0, abs=1e-9)


@pytest.mark.parametrize(("happened", "n", "window"), [(0, 50, 30), (7, 100, 40), (60, 100, 25)])
def test_the_count_of_a_rate_monitor_is_fishers(happened: int, n: int, window: int) -> None:
    """The least count whose one-sided p-value is at most the level, by scipy's test of the table."""
    monitor = RateMonitor(torch.arange(n) < happened, window=window, false_alarms=50.0)
    p = [
        fisher_exact([[k, window - k], [happened, n - happened]], alternative="greater").pvalue
        for k in range(window + 1)
    ]
    assert all(a >= b for a, b in pairwise(p))
    assert p[monitor.least] <= monitor.level < p[monitor.least - 1]
    row = torch.arange(window) < monitor.least
    assert monitor.update(row) == [window - 1]
    assert monitor.update(row.roll(1) & row.roll(-1)) == []


def test_the_count_of_a_latency_monitor_is_the_binomials() -> None:
    """And its power is what the binomial distribution says."""
    g = torch.Generator().manual_seed(0)
    monitor = LatencyMonitor(1.0, 0.05, window=50, false_alarms=2.0)
    assert binom.sf(monitor.least - 1, 50, 0.05) <= monitor.level < binom.sf(monitor.least - 2, 50, 0.05)
    slow = torch.rand(50 * 4000, generator=g) < 0.2
    power = len(monitor.update(1 + slow.double() - 0.5)) / 4000
    assert power == pytest.approx(binom.sf(monitor.least - 1, 50, 0.2), abs=0.03)


def test_the_power_of_a_permutation_monitor_is_that_of_the_t_test() -> None:
    """For a shift of normal values the permutation test of means is nearly the t-test; the reference is long."""
    g = torch.Generator().manual_seed(3)
    shift, window, stated = 0.8, 20, 50.0  # of the level 0.1
    reference = torch.randn(400, generator=g)
    monitor = PermutationMonitor(
        reference - reference.mean(),
        window=window,
        false_alarms=stated,
        statistic=largest_mean_difference,
        generator=g,
    )
    windows = 300
    power = len(monitor.update(torch.randn(windows * window, generator=g) + shift)) / windows
    z = shift / (1 / window + 1 / 400) ** 0.5
    known = float(torch.special.ndtr(torch.tensor(z + torch.special.ndtri(torch.tensor(0.05)).item())))
    assert monitor.level == pytest.approx(0.1)
    assert power == pytest.approx(known, abs=0.08)


def test_class_balance_notices_more_and_fewer() -> None:
    """Of one class each, on both sides, by the counts themselves."""
    reference = torch.arange(200) % 2
    monitor = ClassBalanceMonitor(reference, 3, window=30, false_alarms=10.0)
    assert monitor.update(torch.arange(30) % 2) == []
    assert monitor.update(torch.zeros(30, dtype=torch.int64)) == [59]
    assert monitor.most.tolist()[2] == -1, "that a class of no row has none is no surprise"
    assert 0 < monitor.least[2] < monitor.least[0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=8), st.integers(0, 2**31))
def test_it_does_not_matter_how_a_stream_is_cut(cuts: list[int], seed: int) -> None:
    """The same alarms at the same rows in one call and in many, of all kinds of monitors."""
    x = torch.randn(sum(cuts), generator=torch.Generator().manual_seed(seed)) + 1
    for make in (
        lambda: PermutationMonitor(x[:20] - 1, window=10, false_alarms=99, generator=torch.Generator()),
        lambda: DummyMonitor(7),
        lambda: LatencyMonitor(1.0, 0.3, window=9, false_alarms=99),
    ):
        if len(x) < 20:
            return
        whole, parts = make(), make()
        found = [row for part in x.abs().split(cuts) for row in parts.update(part)]
        assert found == whole.update(x.abs())
        assert parts.rows == len(x)


def test_labels_may_come_late_and_in_any_order() -> None:
    """Windows are of the labels as they came. One that never comes is given up, one that is too late is not used."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(1000, generator=generator) < 0.02
    monitor = ErrorRateMonitor(errors, window=25, false_alarms=10.0, patience=400)
    truth = torch.randint(5, (400,), generator=generator)
    wrong = torch.arange(400) >= 200  # the model breaks
    assert monitor.update(torch.where(wrong, (truth + 1) % 5, truth)) == []
    order = torch.randperm(390, generator=generator).tolist()
    alarms = [row for part in np.array_split(order, 7) for row in monitor.label({int(k): int(truth[k]) for k in part})]
    counts = wrong[order[: 390 // 25 * 25]].view(-1, 25).sum(1)
    assert alarms == [order[25 * k + 24] for k in range(len(counts)) if counts[k] >= monitor._errors.least]
    assert alarms
    assert (monitor.labelled, monitor.given_up, monitor.unlabelled) == (390, 0, 0)
    monitor.update(torch.zeros(400, dtype=torch.int64))
    assert (monitor.given_up, monitor.unlabelled) == (10, 10 / 400)
    assert monitor.label({395: 0}) == []
    assert (monitor.late, monitor.labelled) == (1, 390)
    with pytest.raises(ValueError, match=r"rows 0\.\.799 were seen, got a label of row 800"):
        monitor.label({799: 0, 800: 0})
    assert monitor.labelled == 390, "no label of a refused call is used"
    monitor.label({799: 0})
    with pytest.raises(ValueError, match="row 799 has a label already"):
        monitor.label({799: 1})


def test_confidence_and_entropy_are_their_closed_forms() -> None:
    """Of certain, undecided, and extreme answers."""
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [9e4, 0.0, -9e4, 0.0], [np.log(3.0), 0.0, -np.inf, -np.inf]])
    assert confidence(logits).tolist() == pytest.approx([0.25, 1, 0.75])
    expected = [np.log(4), 0, -0.75 * np.log(0.75) - 0.25 * np.log(0.25)]
    assert entropy(logits).tolist() == pytest.approx(expected, abs=1e-7)


def test_a_dummy_rings_every_n_rows() -> None:
    """And says that all its alarms are false."""
    monitor = DummyMonitor(40)
    assert monitor.false_alarms == 250
    assert monitor.update(torch.zeros(100, 3)) + monitor.update(torch.zeros(20)) == [39, 79, 119]


X = torch.linspace(0, 1, 100)
G = torch.Generator()
REFUSALS = [
    (lambda: DummyMonitor(1), "n at least 2, got 1"),
    (lambda: LatencyMonitor(1.0, 0.1, false_alarms=0), r"lie in \(0, 10000\), got 0"),
    (lambda: LatencyMonitor(1.0, 0.1, false_alarms=300, window=50), "below 1, got a window of 50 and 300"),
    (lambda: LatencyMonitor(1.0, 1.5), r"share lie in \(0, 1\), got 1.0 and 1.5"),
    (lambda: LatencyMonitor(1.0, 0.9, window=5), "no count in a window of 5 rows is rare enough"),
    (lambda: LatencyMonitor(1.0, 0.1).update(-X), "must not be negative"),
    (lambda: PermutationMonitor(X[:20], generator=G), r"got \(20,\) and a window of 50"),
    (lambda: PermutationMonitor(X.view(1, 10, 10), window=2, generator=G), "numbers or vectors"),
    (lambda: PermutationMonitor([0.1, 0.2], generator=G), "the reference must be a tensor"),
    (lambda: PermutationMonitor(X, generator=G).update(X[:, None]), r"of shape \(N,\), got torch.float32 \(100, 1\)"),
    (lambda: PermutationMonitor(X, generator=G).update(X.log()), "finite, got NaN or infinity"),
    (lambda: RateMonitor(X), r"\(N,\), bool, got torch.float32 \(100,\)"),
    (lambda: RateMonitor(X[:0] > 0), "at least one row, got none"),
    (lambda: RateMonitor(X > 0.5, window=3), "no count in a window of 3"),
    (lambda: ClassBalanceMonitor(torch.tensor([0, 3]), 3), r"lie in 0\.\.2, got 0 to 3"),
    (lambda: ClassBalanceMonitor(torch.tensor([0, 0]), 1), "at least two classes, got 1"),
    (lambda: ClassBalanceMonitor(X, 3), "use logits.argmax"),
    (lambda: ErrorRateMonitor(X > 0.9, patience=0), "patience must be at least 1"),
    (lambda: ErrorRateMonitor(X > 0.9).update(torch.tensor([-1])), "not be negative"),
]


@pytest.mark.parametrize(("ask", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_what_a_monitor_cannot_judge_is_refused(ask: Callable[[], object], message: str) -> None:
    """In one line."""
    with pytest.raises(ValueError, match=message) as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_a_refused_call_leaves_a_monitor_as_it_was() -> None:
    """The row numbers go on as if it had not been."""
    monitor = LatencyMonitor(1.0, 0.1, window=10, false_alarms=10)
    monitor.update(torch.full((9,), 2.0))
    with pytest.raises(ValueError, match="finite"):
        monitor.update(torch.tensor([2.0, np.nan]))
    assert monitor.update(torch.tensor([2.0])) == [9]
