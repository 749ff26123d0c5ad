"""Rows that spoil a regression, and TRIM, which finds them."""

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import Ridge as Reference

from aisec_lab.attacks.poisoning.availability import OptP, inv_flip
from aisec_lab.defenses.poisoning.trim import TRIM
from aisec_lab.models import KernelRidge, Ridge

LINE = Ridge(0.01)


def seed(number=0):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def table():
    """Worst texture from the other columns of breast cancer: rows to learn from, to aim at, and to judge by."""
    whole = torch.tensor(load_breast_cancer().data, dtype=torch.float32)
    whole = (whole - whole.amin(0)) / (whole.amax(0) - whole.amin(0))
    whole = whole[torch.randperm(len(whole), generator=seed())]
    x, y = torch.cat([whole[:, :21], whole[:, 22:]], 1), whole[:, 21]
    return [(x[part], y[part]) for part in (slice(300), slice(300, 400), slice(400, None))]


def error(learner, x, y, judge):
    with torch.no_grad():
        return (learner(x, y)(judge[0]).squeeze(1) - judge[1]).square().mean().item()


def test_the_line_is_scikit_learns(table):
    """Whose penalty is on the sum of squares, ours beside their mean, and half."""
    (x, y), _, (new, _) = table
    reference = Reference(alpha=0.3 / 2 * len(x)).fit(x.double().numpy(), y.double().numpy())
    ours = Ridge(0.3)(x.double(), y.double())(new.double()).squeeze(1)
    assert torch.allclose(ours, torch.from_numpy(reference.predict(new.double().numpy())), atol=1e-9)


@pytest.mark.parametrize("learner", [LINE, KernelRidge(0.5, 0.05)], ids=repr)
def test_the_gradient_through_the_solution_is_that_of_finite_differences(learner, table):
    """Every coordinate of two added rows and their numbers, float64, learned again each time."""
    (x, y), (aim, truth) = [[part[:25].double() for part in pair] for pair in table[:2]]
    x, aim = x[:, :6], aim[:, :6]
    added = torch.rand(2, 7, generator=seed(1), dtype=torch.float64)
    attack = OptP(learner)
    _, grad = attack._error(x, y, added, (aim, truth))
    expected = torch.zeros_like(grad)
    for i in range(2):
        for j in range(7):
            bump = torch.zeros_like(added)
            bump[i, j] = 1e-5
            up, down = (attack._error(x, y, added + sign * bump, (aim, truth))[0] for sign in (1, -1))
            expected[i, j] = (up - down) / 2e-5
    assert torch.allclose(grad, expected, rtol=1e-4, atol=1e-9)


def test_the_gradient_is_the_papers_formula(table):
    """The implicit derivative of the normal equations, solved by hand for a line (eq. 6 and 7)."""
    (x, y), (aim, truth) = [[part.double() for part in pair] for pair in table[:2]]
    added = torch.rand(3, x.shape[1] + 1, generator=seed(1), dtype=torch.float64)
    _, grad = OptP(LINE)._error(x, y, added, (aim, truth))
    z = torch.cat([torch.cat([x, added[:, :-1]]), torch.ones(len(x) + 3, 1)], 1)
    numbers, n = torch.cat([y, added[:, -1]]), len(x) + 3
    penalty = torch.diag(torch.tensor([LINE.penalty / 2] * x.shape[1] + [0.0], dtype=torch.float64))
    normal = z.T @ z / n + penalty
    weight = torch.linalg.solve(normal, z.T @ numbers / n)
    ones = torch.cat([aim, torch.ones(len(aim), 1)], 1)
    pull = torch.linalg.solve(normal, 2 * ones.T @ (ones @ weight - truth) / len(aim))
    for row, (moved, residual) in enumerate(zip(z[-3:], (numbers - z @ weight)[-3:], strict=True)):
        in_x = (residual * pull - (pull @ moved) * weight)[:-1] / n
        assert torch.allclose(grad[row, :-1], in_x, rtol=1e-6, atol=1e-12)
        assert grad[row, -1].item() == pytest.approx((pull @ moved).item() / n, rel=1e-6)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_added_rows_raise_the_error_more_than_chance_and_trim_brings_it_back(rate, table):
    """On rows that neither side has seen: above random rows and above the flipped numbers that it begins with; TRIM,
    told the rate, is back at the clean error; told twice the rate, it still finds the poison, at a cost."""
    (x, y), targets, judge = table
    made = OptP(LINE, rate)(x, y, targets=targets, generator=seed())
    p = int(made.poison_mask.sum())
    assert p / (len(x) + p) == pytest.approx(rate, abs=0.002)
    assert torch.equal(made.x[~made.poison_mask], x)
    assert torch.equal(made.y[~made.poison_mask], y)
    assert min(made.x.min(), made.y.min()) >= 0
    assert max(made.x.max(), made.y.max()) <= 1
    random = torch.rand(p, x.shape[1], generator=seed(2)), torch.rand(p, generator=seed(3))
    begun = inv_flip(x, y, rate, seed())
    chance, flipped = (error(LINE, torch.cat([x, a]), torch.cat([y, b]), judge) for a, b in (random, begun))
    clean, poisoned = error(LINE, x, y, judge), error(LINE, made.x, made.y, judge)
    assert poisoned > 1.5 * max(chance, flipped)
    assert poisoned > 4 * clean

    found = TRIM(LINE, rate)(made.x, made.y, generator=seed(1))
    assert int(found.flagged.sum()) == p
    assert found.flagged[made.poison_mask].double().mean() > 0.95
    assert found.score[made.poison_mask].min() > found.score[~found.flagged].max()
    assert error(LINE, made.x[~found.flagged], made.y[~found.flagged], judge) < 1.1 * clean
    wary = TRIM(LINE, 2 * rate)(made.x, made.y, generator=seed(1))
    assert wary.flagged[made.poison_mask].double().mean() > 0.95
    assert error(LINE, made.x[~wary.flagged], made.y[~wary.flagged], judge) - clean < 0.1 * (poisoned - clean)


def test_a_longer_climb_never_does_less_harm_and_a_seed_fixes_it(table):
    """To the rows that it aims at: each step is taken only if the error rises."""
    (x, y), targets, _ = table
    ends = [OptP(LINE, 0.1, steps)(x, y, targets=targets, generator=seed()) for steps in (1, 5, 25, 25)]
    harm = [error(LINE, made.x, made.y, targets) for made in ends]
    assert harm[0] < harm[1] < harm[2]
    assert torch.equal(ends[2].x, ends[3].x)
    assert torch.equal(ends[2].y, ends[3].y)


def test_a_kernel_is_spoiled_too(table):
    """The lab's kernel ridge regression, on few rows and columns."""
    (x, y), targets, judge = [(x[:80, :8], y[:80]) for x, y in table]
    learner = KernelRidge(0.5, 0.01)
    made = OptP(learner, 0.1, steps=30)(x, y, targets=targets, generator=seed())
    begun = inv_flip(x, y, 0.1, seed())
    flipped = error(learner, torch.cat([x, begun[0]]), torch.cat([y, begun[1]]), judge)
    assert error(learner, made.x, made.y, judge) > 1.3 * flipped > 1.3 * error(learner, x, y, judge)


def test_trim_ends_where_no_round_changes_anything(table):
    """The rows kept are those of the smallest residuals under the line learned from them, by hand."""
    (x, y), _, _ = table
    found = TRIM(LINE, 0.3)(x, y, generator=seed())
    kept = ~found.flagged
    residual = (LINE(x[kept], y[kept])(x).squeeze(1) - y).double().square()
    assert torch.allclose(residual, found.score)
    assert residual[kept].max() <= residual[found.flagged].min()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, y: OptP(LINE, rate=0), "rate is the share"),
        (lambda x, y: OptP(LINE, rate=1), "leaves no clean row"),
        (lambda x, y: OptP(LINE, steps=0), "steps must be positive"),
        (lambda x, y: OptP(LINE, 0.6)(x, y, targets=(x, y), generator=seed()), "choose one from"),
        (lambda x, y: OptP(LINE, 1e-5)(x, y, targets=(x, y), generator=seed()), "asks for 0 rows"),
        (lambda x, y: OptP(LINE)(3 * x, y, targets=(x, y), generator=seed()), "rows must lie in"),
        (lambda x, y: OptP(LINE)(x, y, targets=(x, y - 5), generator=seed()), "numbers must lie in"),
        (lambda x, y: OptP(LINE)(x, y[:-1], targets=(x, y), generator=seed()), "rows .* and numbers"),
        (lambda x, y: OptP(LINE)(x, y.long(), targets=(x, y), generator=seed()), "floats"),
        (lambda x, y: Ridge(0), "penalty must be positive"),
        (lambda x, y: TRIM(LINE, 0), "rate must lie"),
        (lambda x, y: TRIM(LINE, restarts=0), "restarts be positive"),
        (lambda x, y: TRIM(LINE, 1e-5)(x, y, generator=seed()), "trims 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message, table):
    """With what was given and what is accepted."""
    with pytest.raises(ValueError, match=message):
        make(*table[0])
