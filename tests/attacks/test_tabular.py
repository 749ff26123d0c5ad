"""Tables: what comes out is a possible row that was paid for, and on a linear model the best of them."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aisec_lab.attacks import L1, PGD, FrankWolfe, TabularConstraints
from aisec_lab.attacks.evasion.tabular.knapsack import PARTS, field_options, project_onto_options
from aisec_lab.models import MLP

FEATURES = ("age", "job=a", "job=b", "job=c", "pressure", "sex=f", "sex=m", "dose")
RULES = {
    "mutable": ("job", "pressure", "dose", "age"),
    "steps": {"age": 4, "pressure": 8},
    "ranges": {"pressure": (0.2, 1.0)},
    "rising": ("age",),
    "costs": {"age": 2.0, "job": 0.5},
}
TABLE = TabularConstraints(FEATURES, **RULES)
WORDS = torch.eye(3)


def seed(number):
    return torch.Generator().manual_seed(number)


def rows(n, number, table=TABLE):
    """Random rows of the space."""
    return table.project(torch.rand(n, len(FEATURES), generator=seed(number)))


def linear(number):
    """A linear classifier of two classes whose boundary runs through the middle of the space."""
    layer = nn.Linear(len(FEATURES), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, len(FEATURES), generator=seed(number)))
        layer.bias.copy_(-layer.weight @ rows(200, 0).mean(0))
    return layer.eval()


def margins(model, z, y):
    logits = model(z).detach().double()
    return logits.gather(1, y[:, None]).squeeze(1) - logits.gather(1, 1 - y[:, None]).squeeze(1)


def everything(x, budget):
    """All rows that one row x could become for at most the budget; the dose moves by whole parts of it."""
    ages, pressures = range(round(4 * float(x[0])), 5), range(min(2, round(8 * float(x[4]))), 9)
    doses = (x[7] + budget / PARTS * torch.arange(-PARTS, PARTS + 1)).clamp(0, 1).unique()
    z = x.repeat(len(ages) * 3 * len(pressures) * len(doses), 1)
    for row, (age, word, pressure, dose) in zip(z, product(ages, WORDS, pressures, doses), strict=True):
        row[0], row[1:4], row[4], row[7] = age / 4, word, pressure / 8, dose
    return z[naive_cost(x, z) <= budget + 1e-6]


def naive_cost(x, z):
    moved = (z.double() - x.double()).abs().T
    return 2 * moved[0] + 0.5 * moved[1:4].amax(0) + moved[4] + moved[7]


@given(number=st.integers(0, 10**6), budget=st.sampled_from([0.0, 0.05, 0.3, 1.0, 7.0]) | st.floats(0, 4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_comes_out_is_possible_to_the_bit_and_paid_for(number, budget):
    """Checked without the table: whole steps, one word, what is not mutable untouched, nobody younger, all paid."""
    x, y = rows(6, number), torch.randint(0, 2, (6,), generator=seed(number))
    net = MLP((16,))((8,), 2, generator=seed(number))
    net.eval()
    z = FrankWolfe(TABLE, budget, steps=4)(net, x, y, generator=seed(0))
    assert torch.equal(z[:, 5:7], x[:, 5:7])
    assert torch.equal(z[:, 0], (z[:, 0] * 4).round() / 4)
    assert torch.equal(z[:, 4], (z[:, 4] * 8).round() / 8)
    assert (z[:, 4] >= x[:, 4].clamp(max=0.25)).all()  # the first step inside the range, or no farther out
    assert (z[:, 0] >= x[:, 0]).all()
    assert ((z[:, 1:4] == 0) | (z[:, 1:4] == 1)).all()
    assert (z[:, 1:4].sum(1) == 1).all()
    assert z.min() >= 0
    assert z.max() <= 1
    assert torch.allclose(naive_cost(x, z), TABLE.cost(x, z))
    assert (naive_cost(x, z) <= budget + 1e-6).all()


@pytest.mark.parametrize("budget", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("number", range(3))
def test_on_a_linear_model_it_breaks_what_brute_force_breaks(budget, number):
    """Every price here is a whole number of parts of the budget, so that the optimum is exact."""
    model, x = linear(number), rows(12, number + 1)
    y = model(x).argmax(1)
    z = FrankWolfe(TABLE, budget)(model, x, y, generator=seed(0))
    lowest = []
    for row, label in zip(x, y, strict=True):
        options = everything(row, budget)
        lowest.append(margins(model, options, label.expand(len(options))).min())
    lowest, reached = torch.stack(lowest), margins(model, z, y)
    assert torch.equal(reached < 0, lowest < 0)
    standing = reached >= 0
    assert torch.allclose(reached[standing], lowest[standing], atol=1e-5)
    assert (reached < 0).any()
    assert standing.any()


def test_the_projection_is_the_nearest_row_that_can_be_paid():
    """Against all rows, one by one; the set is not convex."""
    x, z, budget = rows(6, 5), torch.rand(6, 8, generator=seed(6)), 0.75
    found = project_onto_options(x, field_options(TABLE, x, budget), z)
    for row, goal, answer in zip(x, z, found, strict=True):
        least = ((everything(row, budget) - goal) ** 2).sum(1).min()
        assert ((answer - goal) ** 2).sum() == pytest.approx(float(least), abs=1e-6)


def test_without_rules_it_is_as_strong_as_pgd_in_l1():
    """Numbers alone, cost 1 each: the threat is the ball L1, on a network that is not linear."""
    table = TabularConstraints(tuple("abcdefgh"))
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2)).double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(2 * torch.randn(p.shape, generator=seed(3), dtype=torch.float64))
    x = torch.rand(200, 8, generator=seed(4), dtype=torch.float64)
    y = net(x).argmax(1)
    broken = [
        (net(attack(net, x, y, generator=seed(0))).argmax(1) != y).sum().item()
        for attack in (FrankWolfe(table, 1.0), PGD(L1(1.0), steps=100))
    ]
    assert 20 < broken[1] < 180
    assert broken[0] >= broken[1] - 4


def test_a_row_outside_the_space_and_wrong_rules_are_refused():
    """With row, field and the near name."""
    model, x = linear(0), rows(3, 0)
    y = torch.zeros(3, dtype=torch.int64)
    for place, value, name in ((0, 0.3, "age"), (4, 0.3, "pressure"), (1, 0.5, "job=a")):
        wrong = x.clone()
        wrong[1, place] = value
        with pytest.raises(ValueError, match=f"row 1 has {value:g} in '{name}"):
            FrankWolfe(TABLE, 1.0)(model, wrong, y, generator=seed(0))
    for rules, message in (
        ({"mutable": ("agee",)}, "did you mean 'age'"),
        ({"steps": {"job": 3}}, "steps names no field 'job'"),
        ({"steps": {"age": 0}}, "whole numbers from 1 up"),
        ({"ranges": {"age": (0.5, 0.2)}}, "pairs 0 <= low <= high <= 1"),
        ({"costs": {"age": 0}}, "costs are positive"),
    ):
        with pytest.raises(ValueError, match=message):
            TabularConstraints(FEATURES, **rules)
    with pytest.raises(ValueError, match="8 columns"):
        TABLE.check(x[:, :3])
    for settings_, message in (({"budget": -1.0}, "budget"), ({"budget": 1.0, "steps": 0}, "steps")):
        with pytest.raises(ValueError, match=message):
            FrankWolfe(TABLE, **settings_)
