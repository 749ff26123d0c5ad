"""The nearest point of a hyperplane inside the box, in each norm, against the largest fall inside a ball."""

import numpy as np
import pytest
import torch

from aisec_lab.attacks import L0, L1, L2, Linf
from tests.attacks.test_linear import largest_fall

BALLS = [Linf(0), L2(0), L1(0), L0(0)]
ROWS, SIZE = 60, 7


@pytest.fixture
def points(seed):
    """Float64 points, many coordinates at a face, and slopes, some of them zero."""
    x = (2 * torch.rand(ROWS, SIZE, generator=seed(1), dtype=torch.float64) - 0.5).clamp(0, 1)
    slope = torch.randn(ROWS, SIZE, generator=seed(2), dtype=torch.float64)
    slope[torch.rand(ROWS, SIZE, generator=seed(3)) < 0.2] = 0
    return x, slope


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, -0.3])
@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_it_rises_by_what_is_asked_and_no_smaller_perturbation_does(ball, share, points):
    """In a ball a hair smaller the function rises by less; in L0 in a ball of one coordinate fewer."""
    x, slope = points
    farthest = torch.where(slope * np.sign(share) > 0, 1 - x, -x).mul(slope).abs().sum(1)
    rise = share * farthest
    delta = ball.step_to_hyperplane(x, slope, rise)
    assert ((x + delta >= 0) & (x + delta <= 1)).all()
    assert not delta[slope == 0].any()
    gained = (slope * delta).sum(1)
    if ball.name == "L0":
        assert (gained / rise >= 1 - 1e-12).all()
    else:
        assert torch.allclose(gained, rise, rtol=1e-10)
    for x_i, slope_i, rise_i, size in zip(
        x.numpy(), slope.numpy(), rise.numpy(), ball.norm(delta).tolist(), strict=True
    ):
        smaller = ball.with_eps(int(size) - 1 if ball.name == "L0" else size * (1 - 1e-6))
        assert largest_fall(smaller, slope_i * np.sign(share), x_i) < abs(rise_i)


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_where_the_box_ends_first_it_leads_as_far_as_it_can(ball, points):
    """And nowhere, where there is no slope or nothing to rise."""
    x, slope = points
    far = ball.step_to_hyperplane(x, slope, torch.full((ROWS,), 1e6, dtype=torch.float64))
    corner = torch.where(slope > 0, 1 - x, -x) * (slope != 0)
    assert torch.allclose((slope * far).sum(1), (slope * corner).sum(1))
    assert not ball.step_to_hyperplane(x, 0 * slope, torch.ones(ROWS, dtype=torch.float64)).any()
    assert not ball.step_to_hyperplane(x, slope, torch.zeros(ROWS, dtype=torch.float64)).any()


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8])
@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_the_scale_of_the_function_does_not_matter(ball, scale, points):
    """In float32 too: gradients of saturated models are tiny."""
    x, slope = points[0].float(), points[1].float()
    rise = 0.3 * torch.where(slope > 0, 1 - x, -x).mul(slope).sum(1)
    expected = ball.step_to_hyperplane(x, slope, rise)
    assert torch.allclose(ball.step_to_hyperplane(x, scale * slope, scale * rise), expected, atol=1e-5)


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_each_row_may_have_a_radius_of_its_own(ball, points, seed):
    """`within` is the projection, row by row."""
    x, v = points
    eps = torch.arange(ROWS) % 5 if ball.name == "L0" else 2 * torch.rand(ROWS, generator=seed(4), dtype=torch.float64)
    together = ball.project_per_row(x, v, eps)
    for i in range(ROWS):
        own = ball.with_eps(eps[i].item()).project(x[i : i + 1], v[i : i + 1])
        assert torch.allclose(together[i : i + 1], own, atol=1e-12)
