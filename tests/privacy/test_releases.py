"""Releases: whether the noise has its law, keeps its promise, and errs as far as is said.

The noise that is released has no seed, so a test of it can fail by chance. Each is made at level LEVEL, once in a
million runs, and the same test is shown to catch a mechanism with half the noise.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aisec_lab.privacy.auditing.canaries import CanaryAudit, from_gaussian, from_rates
from aisec_lab.privacy.noise import ReleaseNoise
from aisec_lab.privacy.numeric import PARTS, GroupMeans, Mean, Quantiles
from aisec_lab.privacy.releases import Count, CrossTable, Histogram, consistent, round_to_integers

LEVEL = 1e-6
DRAWS = 10_000
NOISES = [
    ReleaseNoise(1.0),
    ReleaseNoise(0.2),
    ReleaseNoise(4.0),
    ReleaseNoise(1.0, 1e-5),
    ReleaseNoise(6.0, 1e-3),
    ReleaseNoise(1.0, unit=8),
]


def seed(number):
    return torch.Generator().manual_seed(number)


def probabilities(noise, scale, z):
    """By the definitions, not by the code under test."""
    if not noise.delta:
        return stats.dlaplace.pmf(z, 1 / scale)
    return np.exp(-(z**2) / (2 * scale**2)) / np.exp(-(np.arange(-2000, 2001) ** 2) / (2 * scale**2)).sum()


def misfit(draws, noise, scale):
    """The p-value of a chi-square test of draws (n,) against the law; cells of fewer than ten expected are merged."""
    z = np.arange(-2000, 2001)
    expected = len(draws) * probabilities(noise, scale, z)
    inner = np.flatnonzero(expected >= 10)
    low, high = z[inner[0]], z[inner[-1]]
    seen = np.bincount(np.clip(draws, low, high).astype(int) - low, minlength=high - low + 1)
    cells = expected[inner[0] : inner[-1] + 1].copy()
    cells[0] += expected[: inner[0]].sum()
    cells[-1] += expected[inner[-1] + 1 :].sum()
    return stats.chisquare(seen, cells * seen.sum() / cells.sum()).pvalue


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_noise_has_its_law(noise):
    """OpenDP's and the simulated one, each against the exact probabilities; half the noise is seen by the same test."""
    zeros = np.zeros(DRAWS, dtype=np.int64)
    for draws in (noise.add(zeros), noise.simulate(zeros, seed(0))):
        assert misfit(draws, noise, noise.scale) > LEVEL
        assert misfit(draws, noise, 2 * noise.scale) < LEVEL
    z, p = noise.pmf
    np.testing.assert_allclose(p, probabilities(noise, noise.scale, z), atol=1e-12)
    deviation, expected, reach = noise.error
    inside = {t: probabilities(noise, noise.scale, np.arange(-t, t + 1)).sum() for t in (reach - 1, reach)}
    assert inside[reach] >= 0.95 > inside[reach - 1]
    many = probabilities(noise, noise.scale, np.arange(-2000, 2001))
    np.testing.assert_allclose(deviation**2, np.arange(-2000, 2001) ** 2 @ many, rtol=1e-9)
    np.testing.assert_allclose(expected, np.abs(np.arange(-2000, 2001)) @ many, rtol=1e-9)


@pytest.mark.parametrize("noise", [*NOISES, ReleaseNoise(0.5, unit=PARTS), ReleaseNoise(0.5, 1e-5, PARTS)], ids=repr)
def test_simulated_noise_is_like_the_released(noise):
    """The Kolmogorov-Smirnov test of two samples, which is conservative where values tie, at any scale."""
    zeros = np.zeros(DRAWS, dtype=np.int64)
    released, simulated = noise.add(zeros), noise.simulate(zeros, seed(1))
    assert stats.ks_2samp(released, simulated, method="asymp").pvalue > LEVEL
    if noise.scale > 1:
        assert stats.ks_2samp(released, simulated // 2, method="asymp").pvalue < LEVEL
    if noise.unit == PARTS:
        law = stats.norm(scale=noise.scale) if noise.delta else stats.laplace(scale=noise.scale)
        assert stats.kstest(released, law.cdf).pvalue > LEVEL
        size = law.std() * (2 / math.pi) ** 0.5 if noise.delta else noise.scale
        np.testing.assert_allclose(noise.error, [law.std(), size, law.isf(0.025)], rtol=1e-3)


@pytest.mark.parametrize("unit", [1, PARTS])
@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 0), (1, 0), (8, 0), (0.1, 1e-6), (1, 1e-5), (4, 1e-4)])
def test_the_scale_keeps_the_promise(epsilon, delta, unit):
    """By OpenDP's own map, and by the sum that defines delta at epsilon; with half the scale neither holds."""
    noise = ReleaseNoise(epsilon, delta, unit)
    promise = (epsilon, delta) if delta else epsilon
    assert noise._mechanism(noise.scale).check(unit, promise)
    assert not noise._mechanism(noise.scale / 2).check(unit, promise)
    if unit == 1:
        for part, kept in ((1, True), (2, False)):
            z = np.arange(-2000, 2001)
            without, one = (probabilities(noise, noise.scale / part, z - shift) for shift in (0, 1))
            passed = np.maximum(one - math.exp(epsilon) * without, 0).sum()
            assert (passed <= delta + 1e-12) == kept


class Query(NamedTuple):
    make: Any  # from epsilon and delta
    columns: Any  # of n rows
    exact: Any  # what the value is without noise


def columns(n):
    rng = np.random.default_rng(n)
    return np.round(10 * rng.beta(2, 5, n) - 1, 3), rng.integers(0, 3, n), np.array(list("ab"))[rng.integers(0, 2, n)]


def cross(first, second):
    return [[((first == a) & (second == b)).sum() for b in "ab"] for a in (0, 1, 2)]


LEVELS, BOUNDS = (0.1, 0.5, 0.75), (0.0, 5.0)
QUERIES = {
    "count": Query(lambda e, d=0.0: Count(e, delta=d), lambda n: columns(n)[:1], len),
    "histogram": Query(
        lambda e, d=0.0: Histogram(e, (2, 0, 1, 3), delta=d),
        lambda n: columns(n)[1:2],
        lambda group: [(group == c).sum() for c in (2, 0, 1, 3)],
    ),
    "cross table": Query(lambda e, d=0.0: CrossTable(e, (0, 1, 2), "ab", delta=d), lambda n: columns(n)[1:], cross),
    "mean": Query(
        lambda e, d=0.0: Mean(e, BOUNDS, delta=d), lambda n: columns(n)[:1], lambda x: np.clip(x, *BOUNDS).mean()
    ),
    "group means": Query(
        lambda e, d=0.0: GroupMeans(e, BOUNDS, (0, 1, 2), delta=d),
        lambda n: columns(n)[:2],
        lambda x, group: [np.clip(x[group == c], *BOUNDS).mean() for c in (0, 1, 2)],
    ),
    "quantiles": Query(
        lambda e, d=0.0: Quantiles(e, LEVELS, BOUNDS, delta=d),
        lambda n: columns(n)[:1],
        lambda x: np.quantile(np.clip(x, *BOUNDS), LEVELS, method="inverted_cdf"),
    ),
}
every_query = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)


@every_query
def test_without_noise_a_release_is_the_statistic(query):
    """At an epsilon of 100,000 no noise is left, only what a bin and a part of a row are wide."""
    data = query.columns(300)
    released, exact = query.make(1e5)(*data), np.array(query.exact(*data))
    assert released.value.shape == released.low.shape == released.expected_error.shape == exact.shape
    width = (BOUNDS[1] - BOUNDS[0]) / 64 if isinstance(query.make(1.0), Quantiles) else 1e-4
    np.testing.assert_allclose(released.value, exact, atol=width)
    assert (released.low <= exact + 1e-4).all()
    assert (released.high >= exact - 1e-4).all()
    assert (released.high - released.low < 2.1 * width).all()


@every_query
@given(row=st.integers(0, 39), n=st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_a_row_moves_the_table_by_its_unit(query, row, n):
    """In L1 by exactly what the noise is made for, and so in L2 by no more."""
    statistic, data = query.make(1.0), query.columns(n)
    fewer = [np.delete(column, row % n) for column in data]
    moved = np.abs(statistic._cells(*data) - statistic._cells(*fewer))
    assert moved.sum() == statistic.unit


@pytest.mark.parametrize("delta", [0.0, 1e-3])
@every_query
def test_errors_are_as_stated(query, delta):
    """Over 400 simulated releases: the interval covers the exact value, the error has the size that is said."""
    data, statistic = query.columns(300), query.make(1.0, delta)
    exact, generator = np.array(query.exact(*data)), seed(3)
    several = [statistic.simulate(*data, generator=generator) for _ in range(400)]
    covered = np.array([(r.low <= exact) & (exact <= r.high) for r in several]).mean(0)
    assert (covered >= 0.925).all()  # 0.95 less two standard errors
    assert not any(np.isinf(r.high).any() or (r.low > r.value).any() or (r.high < r.value).any() for r in several)
    if isinstance(statistic, Quantiles):
        return  # in shares of rows: next test
    error = np.array([r.value - exact for r in several])
    deviation = np.array([r.deviation for r in several]).mean(0)
    expected = np.array([r.expected_error for r in several]).mean(0)
    np.testing.assert_allclose((error**2).mean(0) ** 0.5, deviation, rtol=0.25)
    np.testing.assert_allclose(np.abs(error).mean(0), expected, rtol=0.2)
    assert np.abs((error**2).mean(0) ** 0.5 / deviation - 1).mean() < 0.12


VALUES = {"a third": 0.3, "one bound": 1.0, "skewed": None}


@pytest.mark.parametrize("delta", [0.0, 1e-9])
@pytest.mark.parametrize("values", VALUES)
def test_the_interval_of_a_mean_covers_at_any_size(values, delta):
    """Few rows that drown in noise, and so many that noise is less than what a row's parts are rounded by."""
    rng, runs, generator = np.random.default_rng(0), 400, seed(5)
    for n, epsilon in ((1, 0.01), (5, 30.0), (300, 0.3), (20_000, 300.0)):
        x = rng.beta(0.1, 2, n) if VALUES[values] is None else np.full(n, VALUES[values])
        mean = Mean(epsilon, (0, 1), delta=delta)
        cells = np.broadcast_to(mean._cells(x), (runs, 2))
        many = mean._release(mean.noise.simulate(cells, generator), True)  # as many releases as there are rows
        missed = int(((many.low > x.mean() + 1e-12) | (many.high < x.mean() - 1e-12)).sum())
        assert missed <= stats.binom.ppf(0.9999, runs, 0.05), (n, epsilon)


@pytest.mark.parametrize(("n", "epsilon"), [(5, 30.0), (300, 0.01), (20_000, 3.0)])
def test_the_intervals_of_quantiles_cover_at_any_size(n, epsilon):
    """Of skewed values and of equal ones, at levels near the ends too."""
    levels, runs, generator = (0.01, 0.5, 0.99), 100, seed(6)
    for x in (np.random.default_rng(0).beta(0.1, 2, n), np.full(n, 0.3)):
        statistic, exact = Quantiles(epsilon, levels, (0, 1)), np.quantile(x, levels, method="inverted_cdf")
        several = [statistic.simulate(x, generator=generator) for _ in range(runs)]
        missed = np.sum([(r.low > exact + 1e-12) | (r.high < exact - 1e-12) for r in several], 0)
        assert (missed <= stats.binom.ppf(0.9999, runs, 0.05)).all()


def test_quantiles_err_by_the_stated_share_of_rows():
    """Rows spread evenly, so that a share of the rows is a share of the width."""
    x = (np.arange(6400) + 0.5) / 6400
    statistic, generator = Quantiles(0.1, (0.25, 0.5), (0, 1)), seed(4)
    several = [statistic.simulate(x, generator=generator) for _ in range(400)]
    error = np.array([r.value for r in several]) - [0.25, 0.5]
    np.testing.assert_allclose((error**2).mean(0) ** 0.5, several[0].deviation, rtol=0.15)
    np.testing.assert_allclose(np.abs(error).mean(0), several[0].expected_error, rtol=0.15)
    covered = np.mean([(r.low <= [0.25, 0.5]) & (r.high >= [0.25, 0.5]) for r in several])
    width = np.mean([r.high - r.low for r in several])
    assert covered > 0.94
    assert (
        width < 2 * 2.2 * several[0].deviation.mean() + 2 / 64
    )  # no wider than its noise and the two bins at its ends


@pytest.mark.parametrize(
    "noise",
    [ReleaseNoise(0.3), ReleaseNoise(1.0), ReleaseNoise(3.0), ReleaseNoise(8.0), ReleaseNoise(1.0, 1e-4)],
    ids=repr,
)
@pytest.mark.parametrize(("few", "many"), [(1, 1), (3, 17), (32, 32), (1, 63)])
def test_tails_of_sums_are_not_understated(noise, few, many):
    """0.75 of `few` draws less 0.25 of `many`, against the exact law by convolution."""
    z, p = noise.pmf
    size = 1 << 17
    spectrum = [np.fft.rfft(np.bincount((weight * z) % size, weights=p, minlength=size)) for weight in (3, -1)]
    law = np.fft.irfft(spectrum[0] ** few * spectrum[1] ** many, size)
    value = np.fft.fftfreq(size, 1 / size) / 4
    deviation, expected, reach = noise.error_of_sum(lambda k: np.array(0.75**k * few + 0.25**k * many))
    np.testing.assert_allclose(deviation**2, value**2 @ law, rtol=1e-4)
    assert law[value > reach].sum() <= 0.0251
    assert law[value > 0.92 * (reach - 0.75)].sum() > 0.025 or deviation < 0.5  # else the draws are mostly zero
    np.testing.assert_allclose(expected, np.abs(value) @ law, rtol=0.12)


@pytest.mark.parametrize(("delta", "conversion"), [(0.0, from_rates), (1e-5, from_gaussian)])
def test_an_audit_finds_no_more_than_is_promised(delta, conversion, monkeypatch):
    """Neighbours that differ by a row in each of many counts: a release is as many runs. Half the noise shows."""
    categories = range(2 * DRAWS)

    def found(level):
        statistic = Histogram(1.0, categories, delta=delta)
        inside, outside = statistic(np.array(categories)).value, statistic(np.array([0])).value
        audit = CanaryAudit(delta, 1 - level, conversion)
        return audit(torch.tensor(inside[1:]), torch.tensor(outside[1:]), generator=seed(0)).epsilon

    honest = found(LEVEL)
    assert honest <= 1
    right = ReleaseNoise.scale.func
    monkeypatch.setattr(ReleaseNoise, "scale", property(lambda noise: right(noise) / 2))
    assert found(0.01) > max(1, honest)  # at this level, that it is missed is as improbable as LEVEL


def test_the_number_of_rows_costs_a_mean_nothing():
    """OpenDP's own mean, which takes the number of rows for public, needs at least our noise."""
    import opendp.prelude as dp

    dp.enable_features("contrib")
    n, epsilon, bounds = 300, 0.5, (0.0, 5.0)
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.symmetric_distance()
    mean = space >> dp.t.then_clamp(bounds) >> dp.t.then_resize(n, constant=2.5) >> dp.t.then_mean()
    theirs = dp.binary_search_param(lambda scale: mean >> dp.m.then_laplace(scale), d_in=1, d_out=epsilon)
    x = np.linspace(*bounds, n)
    ours = Mean(epsilon, bounds).simulate(x, generator=seed(0))
    assert 0.6 < ours.deviation / (2**0.5 * theirs) <= 1.05
    counts = space[0], space[1]
    table = dp.vector_domain(dp.atom_domain(T=int)), counts[1]
    histogram = table >> dp.t.then_count_by_categories([0, 1, 2], null_category=False)
    scale = dp.binary_search_param(lambda scale: histogram >> dp.m.then_laplace(scale), d_in=1, d_out=epsilon)
    assert Histogram(epsilon, (0, 1, 2)).simulate([0, 1], generator=seed(0)).noise.scale == pytest.approx(scale)


@every_query
def test_the_book_is_asked_before_noise_is_drawn(query, monkeypatch):
    """A book that refuses leaves nothing drawn; rows that are refused are not charged; a simulation is free."""
    drawn = []
    real = ReleaseNoise.add
    monkeypatch.setattr(ReleaseNoise, "add", lambda noise, cells: drawn.append(noise) or real(noise, cells))
    charges, data, statistic = [], query.columns(50), query.make(0.5, 1e-3)

    def book(*charge):
        assert not drawn
        charges.append(charge)

    release = statistic(*data, charge=book)
    assert charges == [(type(statistic).__name__, 0.5, 1e-3)]
    assert not release.simulated
    assert (release.noise.epsilon, release.noise.delta, release.noise.name) == (0.5, 1e-3, "discrete Gaussian")
    drawn.clear()

    def spent(*charge):
        raise ValueError("the budget is spent")

    with pytest.raises(ValueError, match="the budget is spent"):
        statistic(*data, charge=spent)
    charges.clear()
    with pytest.raises(ValueError, match="row at least"):
        statistic(*(column[:0] for column in data), charge=book)
    assert statistic.simulate(*data, generator=seed(0)).simulated
    assert not drawn
    assert not charges


@every_query
def test_a_simulation_is_its_seeds_and_a_release_is_not(query):
    """The same seed gives the same bits; releases differ."""
    data, statistic = query.columns(50), query.make(0.1)
    one, same, other = (statistic.simulate(*data, generator=seed(number)) for number in (0, 0, 1))
    for name in ("value", "low", "high", "deviation", "expected_error"):
        assert np.array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.value, other.value)
    assert len({statistic(*data).value.tobytes() for _ in range(12)}) > 1


@pytest.mark.parametrize("statistic", [Mean(0.001, (2, 3)), Quantiles(0.001, (0.5,), (2, 3))], ids=repr)
def test_rows_that_drown_in_noise_leave_the_bounds(statistic):
    """Of five rows at epsilon 0.001 nothing is learned: values lie between the bounds, and half of the intervals span
    them."""
    several = [statistic.simulate([2.1] * 5, generator=seed(number)) for number in range(60)]
    assert all(2 <= r.low <= r.value <= r.high <= 3 for r in several)
    assert np.mean([(r.low == 2) & (r.high == 3) for r in several]) > 0.5
    assert np.mean([(r.low <= 2.1) & (r.high >= 2.1) for r in several]) > 0.9


def test_tensors_are_columns():
    """Classes of a data set as they are."""
    y = torch.tensor([0, 2, 2, 1])
    assert Histogram(1e5, range(3))(y).value.tolist() == [1, 1, 2]
    assert Mean(1e5, (0, 1))(torch.tensor([0.25, 0.75, 0.5])).value == pytest.approx(0.5, abs=1e-3)


tables = st.lists(st.floats(-50, 50), min_size=1, max_size=12)


@given(counts=tables, total=st.floats(0, 200))
@settings(deadline=None)
def test_consistent_counts_are_the_nearest(counts, total):
    """Not negative, of the sum; no small move from one entry to another comes nearer. A fixed point of itself."""
    table = consistent(counts, total)
    assert (table >= 0).all()
    assert table.sum() == pytest.approx(total, abs=1e-6)
    away = np.array(counts) - table
    for taken in np.flatnonzero(table > 1e-6):
        assert away[taken] >= away.max() - 1e-6  # else moving from it to that of the largest would be nearer
    np.testing.assert_allclose(consistent(table, total), table, atol=1e-6)


@given(counts=tables)
@settings(deadline=None)
def test_whole_counts_keep_their_sum(counts):
    """Each is within one of what it was."""
    table = round_to_integers(counts)
    assert table.sum() == np.rint(np.sum(counts))
    assert (np.abs(table - counts) < 1 + 1e-9).all()
    assert np.array_equal(round_to_integers(table), table)


def test_post_processing_keeps_shapes():
    """Of the table that it is given."""
    table = [[1.5, -2.0], [3.0, 0.2]]
    assert consistent(table, 4).shape == (2, 2)
    assert round_to_integers(table).tolist() == [[2, -2], [3, 0]]
    with pytest.raises(ValueError, match="total -1"):
        consistent(table, -1)
    with pytest.raises(ValueError, match="0 entries"):
        consistent([], 1)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: Count(0.0), "epsilon must be positive and finite, got 0.0"),
        (lambda: Count(-1.0), "epsilon must be positive"),
        (lambda: Count(math.nan), "epsilon must be positive"),
        (lambda: Count(math.inf), "epsilon must be positive and finite"),
        (lambda: Count(1.0, delta=1.0), "delta must be 0"),
        (lambda: Count(1.0, delta=-0.1), "delta must be 0"),
        (lambda: Count(1.0, delta=0.25)([1, 2, 3, 4]), "delta must be below 1 / 4"),
        (lambda: Count(1.0)([]), r"a row at least, got shapes \[\(0,\)\]"),
        (lambda: Count(1.0)([[1, 2]]), r"got shapes \[\(1, 2\)\]"),
        (lambda: Count(1.0)([1], [2]), "takes 1 column"),
        (lambda: Histogram(1.0, ()), "categories must be named once each"),
        (lambda: Histogram(1.0, (1, 2, 1)), "categories must be named once each"),
        (lambda: Histogram(1.0, (0, 1))([0, 1, 2]), r"not among the categories \[0, 1\]: name all"),
        (lambda: CrossTable(1.0, (0, 1), ())([0], [1]), "categories must be named once each"),
        (lambda: CrossTable(1.0, (0, 1), (0, 1))([0, 1], [1]), "of one length"),
        (lambda: Mean(1.0, (1, 0)), r"low below high, got \(1, 0\)"),
        (lambda: Mean(1.0, (1, 1)), "low below high"),
        (lambda: Mean(1.0, (0, math.inf)), "finite, low below high"),
        (lambda: Mean(1.0, (0, 1))([0.5, math.nan]), "got NaN or infinity"),
        (lambda: Mean(1.0, (0, 1))(np.array([0.5, None])), "a column of finite numbers is needed, got None"),
        (lambda: Mean(1.0, (0, 1))(np.array([0.5, math.nan], dtype=object)), "a column of finite numbers is needed"),
        (lambda: Mean(1.0, (0, 1))(np.array([0.5, math.inf], dtype=object)), "a column of finite numbers is needed"),
        (lambda: Mean(1.0, (0, 1))(["0.5", "1"]), "a column of numbers is needed"),
        (lambda: Mean(1.0, (0, 1))(np.array(["2020-01-01", "NaT"], dtype="M8[D]")), "a column of numbers is needed"),
        (lambda: Quantiles(1.0, (0.5,), (0, 1))(np.array([1, "x"], dtype=object)), "a column of numbers is needed"),
        (lambda: Quantiles(1.0, (0.5,), (0, 1))([0.5, None]), "a column of finite numbers is needed"),
        (lambda: GroupMeans(1.0, (0, 1), ("a",))([None, 0.5], ["a", "a"]), "a column of finite numbers is needed"),
        (lambda: GroupMeans(1.0, (0, 1), ("a",))([0.5], ["b"]), "not among the categories"),
        (lambda: Quantiles(1.0, (0.5, 1.0), (0, 1)), "levels must lie between 0 and 1"),
        (lambda: Quantiles(1.0, (), (0, 1)), "levels must lie between 0 and 1"),
        (lambda: Quantiles(1.0, (0.5,), (0, 1), bins=1), "bins must be 2 or more"),
        (lambda: Quantiles(1.0, (0.5,), (2, 1)), "low below high"),
    ],
)
def test_bad_input_is_refused(attempt, message):
    """In one line, with what was given."""
    with pytest.raises(ValueError, match=message) as raised:
        attempt()
    assert "\n" not in str(raised.value)


def test_bounds_cannot_come_from_the_rows():
    """There is no statistic that can be made without its public part."""
    for make in (Histogram, CrossTable, Mean, GroupMeans, Quantiles):
        with pytest.raises(TypeError, match="missing"):
            make(1.0)
