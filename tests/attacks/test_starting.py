"""Starting points of minimum-norm attacks, and the steps of Brendel & Bethge's along the boundary."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from aisec_lab.attacks import FMN, L0, L1, L2, Boundary, BrendelBethge, GeoDA, HopSkipJump, Linf, Targeted
from aisec_lab.attacks.evasion.minimum_norm.trust_region import RADIUS_USED, step_onto
from aisec_lab.models import PassCounter

ATTACKS = {
    "BrendelBethge": BrendelBethge(L2(0), steps=15, step_size=0.005),
    "BrendelBethge-L1": BrendelBethge(L1(0), steps=15, step_size=0.005),
    "FMN": FMN(Linf(0), steps=15),
    "HopSkipJump": HopSkipJump(L2(0), queries=150),
    "Boundary": Boundary(queries=150),
    "GeoDA": GeoDA(queries=150),
}
each = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


@pytest.fixture
def rows(cnn, sample):
    """Rows and classes, the first of them wrong as it is; and a point of another class for each."""
    x, y = sample[0][:20], sample[1][:20].clone()
    y[0] = (y[0] + 1) % 10
    pool = sample[0][20:120][cnn(sample[0][20:120]).argmax(1) == sample[1][20:120]]
    classes = cnn(pool).argmax(1)
    start = torch.stack([pool[classes != label][i % 5] for i, label in enumerate(y)])
    return x, y, start


@each
def test_a_search_begins_at_its_start_and_ends_nearer(attack, cnn, rows, seed):
    """What comes back is at most as far as the start, wrong, and where it says; a row wrong as it is stays."""
    x, y, start = rows
    before = start.clone()
    found = attack(cnn, x, y, generator=seed(0), start=start)
    norm = attack.ball.norm
    assert (found.distance <= norm(start - x) * (1 + 1e-5)).all()
    assert found.distance.median() < 0.8 * norm(start - x).median()
    assert (cnn(found.x_adv).argmax(1) != y).all()
    assert torch.allclose(norm(found.x_adv - x), found.distance)
    assert found.distance[0] == 0
    assert torch.equal(start, before)


@each
def test_a_start_of_each_rows_target_reaches_it(attack, cnn, rows, seed):
    """Where nothing else than the start shows what the target looks like."""
    x, _, start = rows
    target = cnn(start).argmax(1)
    aimed = type(attack)(**{**vars(attack), "goal": Targeted()})
    found = aimed(cnn, x, target, generator=seed(0), start=start)
    assert (cnn(found.x_adv).argmax(1) == target).all()
    assert (found.distance <= attack.ball.norm(start - x) * (1 + 1e-5)).all()


@each
def test_a_start_that_is_none_is_refused_in_one_line(attack, cnn, rows, seed):
    """One that has not won, with the row; another shape, another type, outside the box."""
    x, y, start = rows
    right = start.clone()
    right[3] = x[3]
    for wrong, message in (
        (right, r"is not for 1 of \d+, such as row 3: give these another point"),
        (start[:5], r"got torch.float32 \(5, 1, 8, 8\)"),
        (start.double(), "got torch.float64"),
        (start + 1, r"start must lie in \[0, 1\]"),
        (start * torch.nan, r"start must lie in \[0, 1\]"),
        (start.tolist(), "got list"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            attack(cnn, x, y, generator=seed(0), start=wrong)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("attack", [ATTACKS["HopSkipJump"], ATTACKS["Boundary"], ATTACKS["GeoDA"]], ids=repr)
def test_a_start_is_one_query_and_no_second_argument(attack, cnn, rows, seed):
    """The budget holds with it."""
    x, y, start = rows
    counted = PassCounter(cnn)
    type(attack)(attack.ball, 30)(counted, x[1:], y[1:], generator=seed(0), start=start[1:])
    assert counted.forward_passes <= 30 * 19
    with pytest.raises(ValueError, match="not both"):
        attack(cnn, x, y, generator=seed(0), start=start, starts=start)


def test_l0_is_refused():
    with pytest.raises(ValueError, match="not L0: use FMN"):
        BrendelBethge(L0(0))
    for settings in ({"steps": 0}, {"step_size": 0.0}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match="must be positive"):
            BrendelBethge(**settings)


def by_slsqp(ball, x, z, b, rise, radius):
    """The least norm of a row within a radius, and within the share of it that a step uses up at least."""
    return [least_norm(ball, x, z, b, rise, share * radius) for share in (1, RADIUS_USED)]


def least_norm(ball, x, z, b, rise, radius):
    """Of a point on the plane, within the radius and the box; None where the solver finds no point."""
    size = len(x)
    on = [
        {"type": "eq", "fun": lambda v: b @ (v[:size] - z) - rise},
        {"type": "ineq", "fun": lambda v: radius**2 - ((v[:size] - z) ** 2).sum()},
    ]
    bounds, begin, value = [(0, 1)] * size, z, lambda v: ((v - x) ** 2).sum()
    if ball.name != "L2":  # bounds on |v - x|, each of its own or one for all, are variables too
        extra = size if ball.name == "L1" else 1
        bounds = bounds + [(0, 2)] * extra
        begin = np.concatenate([z, np.abs(z - x) if ball.name == "L1" else [np.abs(z - x).max()]])
        on += [{"type": "ineq", "fun": lambda v, s=s: v[size:] - s * (v[:size] - x)} for s in (1, -1)]
        value = lambda v: v[size:].sum()  # noqa: E731
    found = minimize(value, begin, bounds=bounds, constraints=on, method="SLSQP", options={"maxiter": 300})
    return ball.norm(torch.tensor(found.x[None, :size] - x)).item() if found.success else None


@pytest.mark.parametrize("ball", [L2(0), L1(0), Linf(0)], ids=repr)
def test_a_step_ends_at_the_nearest_point_of_the_plane_that_it_reaches(ball, seed):
    """Never outside radius and box; where a general solver finds a point on the plane, ours is as near as its own."""
    x, z = torch.rand(2, 30, 6, generator=seed(0), dtype=torch.float64).mul(1.6).sub(0.3).clamp(0, 1)
    b = torch.randn(30, 6, generator=seed(1), dtype=torch.float64)
    rise = 0.3 * torch.randn(30, generator=seed(2), dtype=torch.float64)
    radius = 0.05 + 0.6 * torch.rand(30, generator=seed(3), dtype=torch.float64)
    y = step_onto(ball, x, z, b, rise, radius)
    assert ((y - z).norm(dim=1) <= radius * (1 + 1e-9)).all()
    assert ((y >= 0) & (y <= 1)).all()
    miss = ((b * (y - z)).sum(1) - rise).abs()
    solved = 0
    for i in range(30):
        row = (part[i].numpy() for part in (x, z, b))
        least, almost = by_slsqp(ball, *row, rise[i].item(), radius[i].item())
        if least is not None and almost is not None:
            solved += 1
            assert miss[i] < 1e-7
            assert least - 1e-5 <= ball.norm(y - x)[i] <= almost + 1e-5
    assert solved > 15


def test_a_plane_out_of_reach_is_approached(seed):
    """By the whole radius along the gradient, or into the corner of the box; without gradient not at all."""
    z = torch.full((3, 4), 0.5, dtype=torch.float64)
    b = torch.tensor([[3.0, 4, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.float64)
    radius = torch.tensor([0.1, 9.0, 0.1], dtype=torch.float64)
    y = step_onto(L2(0), z * 0.5, z, b, torch.tensor([50.0, -50.0, 1.0]), radius)
    assert torch.allclose(y[0], torch.tensor([0.56, 0.58, 0.5, 0.5], dtype=torch.float64))
    assert torch.equal(y[1], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(y[2], z[2])
