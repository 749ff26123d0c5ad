"""Synthetic rows: whether they are like the private ones, keep what is stated, and hold public categories only.

The noise has no seed. What is compared differs by so much that chance fails a test less than once in a million runs.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from aisec_lab.privacy.noise import ReleaseNoise
from aisec_lab.privacy.synthetic import Synthetic

DELTA = 1e-5
N = 200
CATEGORIES = {"group": tuple("abcde"), "len": (0, 1, 2, 3, 4, 5, 6)}  # OpenDP itself takes no column "len"


def private():
    """A column that another follows, a place further on, in 19 of 20 rows; one category of the other is nobody's."""
    first = np.arange(N) % 5
    second = np.where(np.random.default_rng(0).random(N) < 0.95, first + 1, 0)
    return {"len": second, "group": np.array(list("abcde"))[first]}


def distance(ours, theirs, names):
    """Total variation between the shares that the rows of two tables have of each cell of these columns."""
    shape = [len(CATEGORIES[name]) for name in names]
    shares = []
    for table in (ours, theirs):
        cell = np.ravel_multi_index([[CATEGORIES[n].index(v) for v in table[n].tolist()] for n in names], shape)
        shares.append(np.bincount(cell, minlength=math.prod(shape)) / len(cell))
    return np.abs(shares[0] - shares[1]).sum() / 2


def test_rows_are_like_the_private_ones_as_far_as_epsilon_lets_them(monkeypatch):
    """At a large epsilon, single columns and the pair that depends; a tiny one leaves noise. Both cost what they say.

    Of the stated rho, 0.5 is spent on single columns and 0.45 on pairs, seen from the noise that OpenDP added; the
    twentieth that chooses the pairs leaves no trace.
    """
    real, tables, charges = Synthetic._contingency_table, [], []

    def seen(synthetic, cells, rho):
        tables.append(real(synthetic, cells, rho))
        return tables[-1]

    def book(*charge):
        assert len(tables) == len(charges)  # it is asked before noise is drawn
        charges.append(charge)

    monkeypatch.setattr(Synthetic, "_contingency_table", seen)
    data = private()
    clear = Synthetic(50.0, DELTA, CATEGORIES)(data, charge=book)
    assert list(clear.columns) == list(CATEGORIES)
    assert {len(column) for column in clear.columns.values()} <= set(range(N - 8, N + 9))
    for names in (["group"], ["len"], ["group", "len"]):
        assert distance(data, clear.columns, names) < 0.1

    noisy = Synthetic(0.01, DELTA, CATEGORIES, rows=500)(data, charge=book)
    assert {len(column) for column in noisy.columns.values()} == {500}
    assert distance(data, noisy.columns, ["group", "len"]) > 0.2

    assert charges == [("Synthetic", 50.0, DELTA), ("Synthetic", 0.01, DELTA)]
    assert [column.dtype.kind for column in clear.columns.values()] == ["U", "i"]
    for table, rows, epsilon in ((tables[0], clear, 50.0), (tables[1], noisy, 0.01)):
        marginals = table.marginals.flatten()
        assert len(marginals) == 3
        spent = sum(1 / (2 * marginal.stddev**2) for marginal in marginals)  # a row moves a cell of each by one
        assert spent == pytest.approx(0.95 * rows.rho, rel=1e-6)
        assert (rows.epsilon, rows.delta, rows.algorithm) == (epsilon, DELTA, "mst")


@pytest.mark.parametrize("epsilon", [0.01, 1.0, 8.0, 50.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-8])
def test_rho_keeps_to_the_stated_epsilon(epsilon, delta):
    """By the conversion of Canonne et al. (2020, arXiv:2004.00010, corollary 13) and dp-accounting's; it is tight."""
    from dp_accounting import ZCDpEvent
    from dp_accounting.rdp import RdpAccountant

    rho = Synthetic(epsilon, delta, CATEGORIES).rho

    def log_delta(log_excess):
        a = 1 + math.exp(log_excess)
        return (a - 1) * (a * rho - epsilon) + (a - 1) * math.log1p(-1 / a) - math.log(a)

    kept = min(minimize_scalar(log_delta, bounds=(at, at + 3)).fun for at in range(-6, 15))
    assert math.log(delta) - 1e-3 * abs(math.log(delta)) < kept <= math.log(delta) + 1e-6
    orders = 1 + np.exp(np.linspace(-3, 14, 4_000))
    theirs = RdpAccountant(orders).compose(ZCDpEvent(rho)).get_epsilon(delta)
    assert theirs == pytest.approx(epsilon, rel=2e-3)


def test_rows_are_drawn_from_the_model_without_its_nulls():
    """Against the joint distribution of a model of three columns, summed by hand and conditioned."""
    import mbi

    rng = np.random.default_rng(1)
    domain = mbi.Domain(("0", "1", "2"), (3, 4, 3))
    first, second = rng.normal(size=(3, 4)), rng.normal(size=(4, 3))
    first[0] += 3  # the nulls, which come first, would be most of the rows
    potentials = mbi.CliqueVector(
        domain,
        [("0", "1"), ("1", "2")],
        {
            ("0", "1"): mbi.Factor(domain.project(("0", "1")), first),
            ("1", "2"): mbi.Factor(domain.project(("1", "2")), second),
        },
    )
    model = mbi.MarkovRandomField(potentials=potentials, marginals=potentials, total=20_000.4)
    joint = np.exp(first[:, :, None] + second[None])[1:, 1:, 1:]
    categories = {"a": (0, 1), "b": (0, 1, 2), "c": (0, 1)}
    cells = np.stack(Synthetic(1.0, DELTA, categories)._sample(model))
    assert cells.shape == (3, 20_000)
    seen = np.zeros((3, 4, 3))
    np.add.at(seen, tuple(cells), 1 / 20_000)
    np.testing.assert_allclose(seen[1:, 1:, 1:], joint / joint.sum(), atol=0.02)
    assert seen[1:, 1:, 1:].sum() == pytest.approx(1)
    assert np.stack(Synthetic(1.0, DELTA, categories, rows=7)._sample(model)).shape == (3, 7)


def test_a_spent_budget_leaves_nothing_drawn(monkeypatch):
    """Nor is a call charged that is refused."""
    drawn, charges = [], []
    monkeypatch.setattr(Synthetic, "_contingency_table", lambda *_: drawn.append(1))

    def spent(*_):
        raise ValueError("the budget is spent")

    with pytest.raises(ValueError, match="the budget is spent"):
        Synthetic(1.0, DELTA, CATEGORIES)(private(), charge=spent)
    for wrong in ({"len": [9] * N}, {"len": []}, {"more": [1] * N}):
        with pytest.raises(ValueError, match=r"categories|one length"):
            Synthetic(1.0, DELTA, CATEGORIES)(private() | wrong, charge=lambda *charge: charges.append(charge))
    assert not drawn
    assert not charges


def test_categories_come_back_as_they_are(monkeypatch):
    """Mixed ones, too, and pairs: no value turns into text, and no type tells which values occur."""
    categories = {"mixed": (1, "1", None), "pairs": ((0, 1), (2,)), "long": ("a", "much longer")}
    monkeypatch.setattr(Synthetic, "_contingency_table", lambda *_: SimpleNamespace(model=None))
    monkeypatch.setattr(
        Synthetic, "_sample", lambda *_: [np.array([3, 1, 2]), np.array([1, 2, 1]), np.array([1, 1, 1])]
    )
    pairs = np.empty(2, dtype=object)
    pairs[:] = [(0, 1), (2,)]
    made = Synthetic(1.0, DELTA, categories)(
        {"mixed": np.array([1, None], dtype=object), "pairs": pairs, "long": ["a", "a"]}
    )
    assert made.columns["mixed"].tolist() == [None, 1, "1"]
    assert made.columns["pairs"].tolist() == [(0, 1), (2,), (0, 1)]
    assert made.columns["long"].dtype == np.dtype("<U11")


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: Synthetic(0.0, DELTA, CATEGORIES), "epsilon must be positive"),
        (lambda: Synthetic(math.nan, DELTA, CATEGORIES), "epsilon must be positive"),
        (lambda: Synthetic(1.0, 0.0, CATEGORIES), "delta must be positive, got 0"),
        (lambda: Synthetic(1.0, 1.0, CATEGORIES), "delta must be 0"),
        (lambda: Synthetic(1.0, 1 / N, CATEGORIES)(private()), "delta must be below 1 / 200"),
        (lambda: Synthetic(1.0, DELTA, {"a": (0, 1)}), r"two columns at least, got \['a'\]"),
        (lambda: Synthetic(1.0, DELTA, {"a": (0, 1), "b": (0, 0)}), "categories must be named once each"),
        (lambda: Synthetic(1.0, DELTA, {"a": (0, 1), "b": ()}), "categories must be named once each"),
        (lambda: Synthetic(1.0, DELTA, CATEGORIES, "gan"), r"one of \['aim', 'mst'\], got 'gan'"),
        (lambda: Synthetic(1.0, DELTA, CATEGORIES, rows=0), "rows must be 1 or more"),
        (lambda: Synthetic(1.0, DELTA, CATEGORIES)({"len": [1]}), r"got \['len'\]"),
        (lambda: Synthetic(1.0, DELTA, CATEGORIES)(private() | {"len": [1]}), "of one length"),
        (
            lambda: Synthetic(1.0, DELTA, CATEGORIES)(private() | {"len": [7] * N}),
            "a value is not among the categories",
        ),
        (lambda: Synthetic(1.0, DELTA, CATEGORIES)(private() | {"len": [math.nan] * N}), "got NaN or infinity"),
    ],
)
def test_bad_input_is_refused(attempt, message):
    """In one line, with what was given."""
    with pytest.raises(ValueError, match=message) as raised:
        attempt()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("columns", [2, 8, 30])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_rho_is_one_that_opendp_can_split(epsilon, columns):
    """The choices of the tree's pairs, built by OpenDP for its own shares, cost no more than it sets aside for them."""
    import mbi
    import opendp.prelude as dp
    from opendp.extras.mbi import _mst, _utilities
    from opendp.extras.numpy import arrayd_domain

    dp.enable_features("contrib")
    synthetic = Synthetic(epsilon, DELTA, {str(number): (0, 1) for number in range(columns)})
    domain = mbi.Domain(synthetic.categories, [3] * columns)
    model = mbi.MarkovRandomField(potentials=mbi.CliqueVector.zeros(domain, [("0",)]), marginals=None)
    edges = [(str(number), str(number + 1)) for number in range(columns - 1)]
    space = (
        _utilities.typed_dict_domain({edge: arrayd_domain(shape=(3, 3), T="i32") for edge in edges}),
        _utilities.typed_dict_distance(dp.l2_distance(T="u32")),
        dp.zero_concentrated_divergence(),
    )

    def kept(rho):
        rest = _utilities.prior(_utilities.prior(rho - rho * 0.5))
        chosen = _utilities.prior(_utilities.prior(rest - rest * dp.mbi.MST().measure_split))
        moved = dict.fromkeys(edges, 1.0)
        return _mst._make_mst_select(*space, moved, chosen, edges, model).map(moved) <= chosen

    assert kept(synthetic.rho)
    assert synthetic.rho == pytest.approx(1 / (2 * ReleaseNoise(epsilon, DELTA).scale ** 2), rel=1e-6)
    if columns > 2:  # else no rounding can matter
        assert not all(kept(synthetic.rho * (1 - part * 1e-9)) for part in range(1, 30))


def test_noise_that_is_stated_is_the_noise_of_one_draw():
    """Half the noise has four times the rho."""
    one = Synthetic(1.0, DELTA, CATEGORIES).rho
    assert one * 2 * ReleaseNoise(1.0, DELTA).scale ** 2 == pytest.approx(1)
