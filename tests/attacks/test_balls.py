"""The balls: exact projections, checked against a slow second way; starts and steps inside."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq
from scipy.stats import kstest

from aisec_lab.attacks import L0, L1, L2, Linf
from aisec_lab.attacks.evasion.geometry.projections import mask_blocked

BALLS = [Linf(0.15), L2(0.6), L1(1.1), L0(2), Linf(0), L2(0), L1(0), L0(0), L2(30), L0(30)]
unit = st.floats(0, 1, width=32) | st.sampled_from([0.0, 1.0])
rows = st.integers(1, 7).flatmap(
    lambda d: st.tuples(
        arrays(np.float32, (3, d), elements=unit), arrays(np.float32, (3, d), elements=st.floats(-3, 3, width=32))
    )
)


def naive(ball, x, v):
    """The projection of one row v in float64: by bisection (L2, L1), by trying every support (L0)."""
    low, high = -x, 1 - x

    def shrunk(t):
        return np.clip(v / (1 + t) if ball.name == "L2" else np.sign(v) * np.maximum(np.abs(v) - t, 0), low, high)

    def excess(t):
        return np.linalg.norm(shrunk(t), 2 if ball.name == "L2" else 1) - ball.eps

    if ball.name == "Linf":
        return np.clip(v, np.maximum(low, -ball.eps), np.minimum(high, ball.eps))
    if ball.name == "L0":
        nearest, best = np.zeros_like(v), np.inf
        for support in combinations(range(len(v)), min(ball.eps, len(v))):
            d = np.zeros_like(v)
            d[list(support)] = np.clip(v, low, high)[list(support)]
            if ((d - v) ** 2).sum() < best:
                nearest, best = d, ((d - v) ** 2).sum()
        return nearest
    if excess(0) <= 0:
        return shrunk(0)
    if ball.eps == 0:
        return np.zeros_like(v)
    return shrunk(brentq(excess, 0, 1e12 if ball.name == "L2" else np.abs(v).max(), xtol=1e-15, rtol=1e-14))


def inside(ball, x, delta, slack=1e-6):
    sizes = ball.norm(delta.double())
    return bool((sizes <= ball.eps * (1 + slack) + 1e-30).all() and (x + delta >= 0).all() and (x + delta <= 1).all())


@pytest.mark.parametrize("ball", BALLS, ids=repr)
@given(rows=rows)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_projection_is_the_nearest_point(ball, rows):
    """As near as the slow way's point, inside ball and box, and its own projection."""
    x, v = (torch.tensor(part) for part in rows)
    delta = ball.project(x, v)
    assert inside(ball, x, delta)
    assert torch.allclose(ball.project(x, delta), delta, atol=1e-6)
    for i in range(len(x)):
        x64, v64 = x[i].double().numpy(), v[i].double().numpy()
        expected = naive(ball, x64, v64)
        found = delta[i].double().numpy()
        assert np.linalg.norm(found - v64) <= np.linalg.norm(expected - v64) + 1e-5
        if ball.name != "L0":  # the others are convex: only one point is nearest
            assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("ball", BALLS[:4], ids=repr)
def test_no_feasible_point_is_nearer(ball, seed):
    """Against 200 random points of ball and box for each of 50 rows, float64."""
    x = torch.rand(50, 2, 3, generator=seed(0), dtype=torch.float64).mul(1.6).sub(0.3).clamp(0, 1)
    v = torch.randn(50, 2, 3, generator=seed(1), dtype=torch.float64)
    distance = (ball.project(x, v) - v).flatten(1).norm(dim=1)
    for draw in range(200):
        other = ball.sample(x, seed(draw))
        assert ((other - v).flatten(1).norm(dim=1) >= distance - 1e-12).all()


@pytest.mark.parametrize("ball", [Linf(8 / 255), L2(0.5), L1(12), L0(50)], ids=repr)
def test_projection_holds_in_float32_on_image_sizes(ball, seed):
    """Inside by 1e-6 of eps at 3 x 32 x 32, many pixels at a face of the box."""
    x = torch.rand(64, 3, 32, 32, generator=seed(0)).mul(2).sub(0.5).clamp(0, 1)
    for scale in (1e-3, 1, 1e4):
        assert inside(ball, x, ball.project(x, scale * torch.randn(x.shape, generator=seed(1))))


@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_starts_lie_inside_and_go_with_the_row(ball, seed):
    """Random starts are feasible, and the same for a row in another batch."""
    x = torch.rand(40, 1, 3, 5, generator=seed(0)).mul(1.6).sub(0.3).clamp(0, 1)
    start = ball.sample(x, seed(1))
    assert start.shape == x.shape
    assert inside(ball, x, start)
    assert torch.equal(ball.sample(x.flip(0)[:7], seed(1)), start.flip(0)[:7])
    if ball.eps:
        assert not torch.equal(ball.sample(x, seed(2)), start)


@pytest.mark.parametrize("ball", [Linf(0.2), L2(0.2), L1(0.2)], ids=repr)
def test_starts_are_uniform_where_the_box_does_not_bind(ball, seed):
    """The share of the volume inside a start's own radius, size / eps to the power of D, is uniform on [0, 1]."""
    x = 0.5 + 1e-3 * torch.rand(4000, 6, generator=seed(0), dtype=torch.float64)
    share = (ball.norm(ball.sample(x, seed(1))) / ball.eps) ** 6
    assert kstest(share.numpy(), "uniform").pvalue > 0.001


@pytest.mark.parametrize("ball", [Linf(0.2), L2(0.2), L1(0.2), L0(2)], ids=repr)
@pytest.mark.parametrize("scale", [1e-37, 1e-8, 1.0, 1e8])
def test_steps_ascend_and_ignore_the_scale_of_the_gradient(ball, scale, seed):
    """A step points uphill, is finite, zero on a zero gradient, and the same for a tiny as for a large one."""
    grad = torch.randn(5, 8, generator=seed(0))
    grad[0] = 0
    step = ball.ascent_direction(scale * grad)
    assert torch.allclose(step, ball.ascent_direction(grad), rtol=1e-4)
    assert not step[0].any()
    assert ((step * grad).sum(1)[1:] > 0).all()


def test_coordinates_that_the_box_stops_get_no_step():
    """Only those that stand at a face unperturbed and would leave the box."""
    x = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.5, 0.2, 0.0]])
    delta = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.5, -0.2, 0.1]])
    grad = torch.tensor([[-1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0]])
    assert mask_blocked(x, delta, grad).tolist() == [[0, 1, 0, -1, 1, -1, -1]]


@pytest.mark.parametrize("kind", [Linf, L2, L1, L0])
@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_impossible_radius_is_refused(kind, eps):
    """The message names the norm and the number given."""
    with pytest.raises(ValueError, match=f"{kind.__name__} .*{eps}"):
        kind(eps)


def test_l0_counts_coordinates():
    """Half a coordinate is refused, a whole number of any type is not."""
    with pytest.raises(ValueError, match="whole number, got 2.5"):
        L0(2.5)
    assert L0(2.0) == L0(2)
    assert L0(2).with_eps(3) == L0(3)
    assert Linf(0.1).name == "Linf"
