"""Extraction that solves for the victim: parameters, hyperplanes and trees against those that were put in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from torch import nn

from aisec_lab.attacks import Oracle
from aisec_lab.attacks.extraction.hyperplane import HyperplaneExtraction
from aisec_lab.attacks.extraction.linear import LinearExtraction, linear_model
from aisec_lab.attacks.extraction.trees import TreeExtraction
from aisec_lab.data import Dataset
from aisec_lab.models import MLP, Normalised
from aisec_lab.models.tree import DecisionTree, Tree


class Published(nn.Module):
    """A victim whose probabilities are changed on their way out."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x):
        return self.change(self.model(x).softmax(1)).log()


class Shape(NamedTuple):
    inputs: tuple[int, ...]
    classes: int


def pool_of(shape, rows=50, number=9):
    x = torch.rand(rows, *shape, generator=torch.Generator().manual_seed(number))
    return Dataset(x, torch.zeros(rows, dtype=torch.int64), ("none",), "random rows")


def linear_victim(d, classes, number=0):
    """Random weights, and a bias with which all boundaries meet in one point of the box."""
    generator = torch.Generator().manual_seed(number)
    weight = torch.randn(classes, d, generator=generator)
    return linear_model(weight, -weight @ (0.3 + 0.4 * torch.rand(d, generator=generator)))


def table(load):
    """Training rows, an attacker's rows and test rows of a table scaled to [0, 1]."""
    data = load()
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    span = x.amax(0) - x.amin(0)
    x = (x - x.amin(0)) / torch.where(span > 0, span, 1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    whole = Dataset(x, y, tuple(map(str, data.target_names)), load.__name__)
    return [whole.subset(rows) for rows in order.tensor_split([len(x) // 2, 3 * len(x) // 4])]


SHAPES = [Shape((1,), 2), Shape((5,), 2), Shape((1, 8, 8), 2), Shape((30,), 3), Shape((1, 8, 8), 10)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_linear_model_is_solved_for_from_d_plus_1_answers(shape, seed):
    """To 1e-5 from float32 probabilities, up to the offset by class 0; the oracle would not have answered once more."""
    d = torch.Size(shape.inputs).numel()
    victim = linear_victim(d, shape.classes)
    oracle = Oracle(victim, budget=d + 1)
    stolen = LinearExtraction(checks=0)(oracle, pool_of(shape.inputs), generator=seed(0))
    weight, bias = victim[1].weight, victim[1].bias
    assert torch.allclose(stolen.model[1].weight, weight - weight[0], rtol=0, atol=1e-5)
    assert torch.allclose(stolen.model[1].bias, bias - bias[0], rtol=0, atol=1e-5)
    assert stolen.queries == oracle.queries == d + 1
    assert not stolen.model.training


def test_the_normalisation_inside_a_victim_is_found_with_its_weights(seed):
    """(x - m) / s W + b is W / s x + b - W m / s."""
    victim = nn.Sequential(Normalised([0.2, 0.5, 0.7], [0.1, 0.3, 2.0]), nn.Linear(3, 4)).eval()
    with torch.no_grad():
        victim[1].weight.copy_(torch.randn(4, 3, generator=seed(1)))
        victim[1].bias.copy_(torch.randn(4, generator=seed(2)))
    stolen = LinearExtraction()(Oracle(victim), pool_of((3,)), generator=seed(0))
    mean, std = victim[0].mean, victim[0].std
    weight = victim[1].weight / std
    bias = victim[1].bias - weight @ mean
    assert torch.allclose(stolen.model[1].weight, weight - weight[0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(stolen.model[1].bias, bias - bias[0], rtol=1e-5, atol=1e-5)
    assert stolen.queries == 3 + 1 + 8


REFUSED = {
    "labels": (linear_victim(6, 3), {"labels_only": True}, "publishes labels only"),
    "another model": (MLP((8,))((6,), 3, generator=torch.Generator().manual_seed(0)).eval(), {}, "not linear"),
    "two digits": (
        Published(linear_victim(6, 3, 1), lambda p: (p.clamp(0.02, 0.98) * 100).round() / 100).eval(),
        {},
        "rounds",
    ),
    "the best one": (Published(linear_victim(6, 3), lambda p: p * (p == p.amax(1, keepdim=True))).eval(), {}, "are 0"),
}


@pytest.mark.parametrize(("victim", "how", "message"), REFUSED.values(), ids=REFUSED)
def test_answers_that_are_no_linear_models_are_refused(victim, how, message, seed):
    """Not taken for one, whose parameters would be wrong."""
    with pytest.raises(ValueError, match=message):
        LinearExtraction()(Oracle(victim, **how), pool_of((6,)), generator=seed(0))


@pytest.mark.parametrize("d", [1, 2, 5, 30, 64])
def test_a_hyperplane_is_found_from_labels_alone(d, seed):
    """Direction and offset to 1e-5, the sides the right way round, for the number of queries that is promised."""
    victim = linear_victim(d, 2, number=d)
    oracle = Oracle(victim, labels_only=True)
    stolen = HyperplaneExtraction()(oracle, pool_of((d,)), generator=seed(0))
    normal, offset = victim[1].weight.diff(dim=0)[0], victim[1].bias.diff()
    copy = stolen.model[1]
    assert torch.allclose(copy.weight.diff(dim=0)[0], normal / normal.norm(), rtol=0, atol=1e-5)
    assert torch.allclose(copy.bias.diff(), offset / normal.norm(), rtol=0, atol=1e-5)
    assert stolen.queries == oracle.queries == 38 * 2 * (d + 1) + 2


def test_a_corner_cut_off_is_found_by_means_of_the_pool(seed):
    """Where random points are all of one class, the pool's rows are asked; with such a pool too, it says so."""
    victim = linear_model(torch.stack([torch.zeros(20), torch.ones(20)]), torch.tensor([0.0, -19.0]))
    pool = pool_of((20,), rows=300)
    pool.x[250] = 0.99
    oracle = Oracle(victim, labels_only=True)
    stolen = HyperplaneExtraction()(oracle, pool, generator=seed(0))
    assert torch.allclose(stolen.model[1].weight[1], torch.full((20,), 20**-0.5 / 2), rtol=0, atol=1e-5)
    assert stolen.model[1].bias.diff().item() == pytest.approx(-19 * 20**-0.5, abs=1e-4)
    assert stolen.queries == oracle.queries == 38 * 42 + 2 + 42 * 6
    with pytest.raises(ValueError, match="all 92 points that were asked are of class 0"):
        HyperplaneExtraction()(Oracle(victim, labels_only=True), pool_of((20,)), generator=seed(0))


def test_a_boundary_that_is_no_hyperplane_is_refused(seed):
    """And so are more than two classes, for which no sign tells the sides apart."""
    curved = MLP((8,))((6,), 2, generator=seed(0)).eval()
    with pytest.raises(ValueError, match="the victim is not linear"):
        HyperplaneExtraction()(Oracle(curved, labels_only=True), pool_of((6,)), generator=seed(0))
    with pytest.raises(ValueError, match="the victim has 3"):
        HyperplaneExtraction()(Oracle(linear_victim(6, 3)), pool_of((6,)), generator=seed(0))


def random_tree(leaves, d, number):
    """A tree of so many leaves, each with its own probabilities, whose thresholds lie inside their cells."""
    generator = torch.Generator().manual_seed(number)
    column, threshold, left, right, cells = [-1], [0.0], [0], [0], [(torch.zeros(d), torch.ones(d))]
    open_leaves = [0]
    for _ in range(leaves - 1):
        node = open_leaves.pop(int(torch.randint(len(open_leaves), (), generator=generator)))
        i = int(torch.randint(d, (), generator=generator))
        low, high = cells[node]
        t = (low[i] + (high[i] - low[i]) * (0.2 + 0.6 * torch.rand((), generator=generator))).item()
        column[node], threshold[node], left[node], right[node] = i, t, len(column), len(column) + 1
        open_leaves += [len(column), len(column) + 1]
        place = torch.arange(d) == i
        cells += [(low, torch.where(place, t, high)), (torch.where(place, t, low), high)]
        column, threshold, left, right = [*column, -1, -1], [*threshold, 0.0, 0.0], [*left, 0, 0], [*right, 0, 0]
    probabilities = torch.rand(len(column), 3, generator=generator).softmax(1)
    arrays = torch.tensor(column), torch.tensor(threshold).double(), torch.tensor(left), torch.tensor(right)
    return Tree(*arrays, probabilities).eval()


def around(tree, x):
    """Rows put on each of a tree's thresholds, as a float32 at most as large, and on the next float32 beyond."""
    inner = torch.ones(len(tree.column), dtype=torch.bool)
    inner[tree.leaves] = False
    rows = []
    for i, t in zip(tree.column[inner].tolist(), tree.threshold[inner].tolist(), strict=True):
        on = torch.tensor(t).float()
        on = on if on.double() <= t else torch.nextafter(on, torch.tensor(0.0))
        for value in (on, torch.nextafter(on, torch.tensor(1.0))):
            rows.append(x.clone())
            rows[-1][:, i] = value
    return torch.cat(rows)


@given(leaves=st.integers(2, 12), d=st.integers(1, 6), number=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_a_tree_whose_leaves_differ_is_found_exactly(leaves, d, number):
    """The same probabilities everywhere, on either side of every threshold too, without a row of data."""
    victim, generator = random_tree(leaves, d, number), torch.Generator().manual_seed(number)
    oracle = Oracle(victim)
    stolen = TreeExtraction(rows=0, probes=0)(oracle, pool_of((d,), rows=1), generator=generator)
    x = torch.rand(60, d, generator=generator)
    x = torch.cat([x, around(victim, x)])
    assert torch.allclose(stolen.model(x), victim(x), rtol=0, atol=1e-5)
    assert stolen.queries == oracle.queries
    assert len(stolen.model.leaves) >= leaves
    assert not stolen.model.training


def thresholds(tree):
    inner = torch.ones(len(tree.column), dtype=torch.bool)
    inner[tree.leaves] = False
    return torch.stack([tree.column[inner].double(), tree.threshold[inner]], dim=1)  # (M, 2)


class Grown(NamedTuple):
    load: Callable[[], Any]
    tree: DecisionTree
    labels_only: bool


GROWN = [
    Grown(load_iris, DecisionTree(), False),
    Grown(load_wine, DecisionTree(leaf_rows=5), True),
    Grown(load_breast_cancer, DecisionTree(), True),
]


@pytest.mark.parametrize("case", GROWN, ids=lambda case: case.load.__name__)
def test_trees_that_data_grew_are_found_where_leaves_publish_the_same(case, seed):
    """As pure ones do, and labels: still every cut is one of the victim's, and every row asked gets its answer."""
    train, pool, test = table(case.load)
    victim = case.tree(train, generator=seed(0))
    oracle = Oracle(victim, labels_only=case.labels_only)
    stolen = TreeExtraction(rows=len(pool))(oracle, pool, generator=seed(1))
    assert torch.equal(stolen.model(pool.x).argmax(1), victim(pool.x).argmax(1))
    assert (stolen.model(test.x).argmax(1) == victim(test.x).argmax(1)).double().mean() > 0.97
    distance = torch.cdist(thresholds(stolen.model), thresholds(victim), p=torch.inf)
    assert distance.amin(1).max() < 1e-7
    assert stolen.queries == oracle.queries


def bounds(tree):
    """How many sides the boxes of all leaves have that are not sides of the box of all inputs."""
    sides = [set() for _ in tree.column]
    for node in sorted(set(range(len(sides))) - set(tree.leaves.tolist())):
        for side, child in enumerate(tree.branches[node].tolist()):
            sides[child] = sides[node] | {(int(tree.column[node]), side)}
    return sum(len(sides[leaf]) for leaf in tree.leaves.tolist())


def test_a_tree_on_images_costs_fewer_queries_than_a_walk_over_all_columns(seed):
    """Path finding asks at both ends of each column and halves up to each side, of every leaf."""
    train, pool, test = table(load_digits)
    victim = DecisionTree(depth=5, leaf_rows=5)(train, generator=seed(0))
    image = Dataset(pool.x.unflatten(1, (1, 8, 8)), pool.y, pool.classes, pool.name)
    stolen = TreeExtraction(rows=0, probes=0, tries=16)(Oracle(victim), image, generator=seed(1))
    assert torch.allclose(stolen.model(test.x), victim(test.x), rtol=0, atol=1e-5)
    assert stolen.queries < 2 * 64 * len(victim.leaves) + 24 * bounds(victim)
    assert len(stolen.model.leaves) < 2 * len(victim.leaves)


def test_a_coarser_threshold_costs_less_and_is_as_coarse_as_it_says(seed):
    """To 0.01: some seven halvings and not some twenty-four."""
    victim = random_tree(8, 4, 5)
    exact, coarse = (
        TreeExtraction(rows=0, probes=0, tolerance=tolerance)(Oracle(victim), pool_of((4,)), generator=seed(0))
        for tolerance in (0.0, 0.01)
    )
    assert coarse.queries < 0.7 * exact.queries
    distance = torch.cdist(thresholds(coarse.model), thresholds(victim), p=torch.inf).amin(1)
    assert 1e-5 < distance.max() <= 0.01


@pytest.mark.parametrize(
    ("labels_only", "message"),
    [(False, "by degrees"), (True, "no tree of at most 20 leaves")],
    ids=["scores", "labels"],
)
def test_what_is_no_tree_is_refused(labels_only, message, seed):
    """A slope at once, a slanting boundary after as many cuts as were allowed."""
    oracle = Oracle(linear_victim(4, 3), labels_only=labels_only)
    with pytest.raises(ValueError, match=message):
        TreeExtraction(leaves=20)(oracle, pool_of((4,)), generator=seed(0))


@pytest.mark.parametrize(
    ("attack", "given"),
    [
        (LinearExtraction, {"checks": -1}),
        (LinearExtraction, {"tolerance": 0}),
        (HyperplaneExtraction, {"lines": 0}),
        (TreeExtraction, {"probes": -1}),
        (TreeExtraction, {"leaves": 0}),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(attack, given):
    """With all of them in the message."""
    with pytest.raises(ValueError, match=f"{attack.__name__}\\("):
        attack(**given)


def test_an_oracle_with_too_few_answers_left_is_not_asked_at_all(seed):
    """Where the number is known beforehand."""
    oracle = Oracle(linear_victim(6, 2), budget=14)
    for attack in (LinearExtraction(), HyperplaneExtraction()):
        with pytest.raises(ValueError, match="answers only 14 more"):
            attack(oracle, pool_of((6,)), generator=seed(0))
    assert oracle.queries == 0
