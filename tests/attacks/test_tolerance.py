"""Regression: on a linear regressor the largest error within a ball is known."""

import pytest
import torch
from torch import nn

from aisec_lab.attacks import (
    APGD,
    FGSM,
    L0,
    L1,
    L2,
    PGD,
    AbsoluteError,
    CrossEntropy,
    Linf,
    RegressionTolerance,
    SignedError,
    Targeted,
    Untargeted,
)

BALLS = {Linf(0.1): 1, L2(0.2): 2, L1(0.3): torch.inf}


@pytest.fixture
def regressor(seed):
    """y = w . x, float64."""
    layer = nn.Linear(10, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(1, 10, generator=seed(0), dtype=torch.float64))
    return layer.eval()


@pytest.fixture
def inputs(regressor, seed):
    """Rows so far from the faces of the box that it does not bind, and values that the model misses by a little."""
    x = 0.4 + 0.2 * torch.rand(40, 10, generator=seed(1), dtype=torch.float64)
    with torch.no_grad():
        y = regressor(x).squeeze(1) + 0.2 * torch.randn(40, generator=seed(2), dtype=torch.float64)
    return x, y


def error(model, x, y):
    return (model(x).squeeze(1) - y).detach()


@pytest.mark.parametrize("ball", BALLS, ids=repr)
@pytest.mark.parametrize("upwards", [True, False])
def test_the_answer_moves_by_eps_times_the_dual_norm(ball, upwards, regressor, inputs, seed):
    """In either direction, and never by more."""
    x, y = inputs
    reach = ball.eps * regressor.weight.detach().norm(BALLS[ball])
    for attack in (
        FGSM(ball, loss=SignedError(upwards), goal=RegressionTolerance(0)),
        APGD(ball, loss=SignedError(upwards), goal=RegressionTolerance(1e9)),
        PGD(ball, steps=100, loss=SignedError(upwards), goal=RegressionTolerance(1e9), early_stop=False),
    ):
        z = attack(regressor, x, y, generator=seed(0))
        moved = error(regressor, z, y) - error(regressor, x, y)
        # what a goal of |error| returns is its largest: upwards where the row erred upwards
        along = moved if upwards else -moved
        assert (along <= reach * (1 + 1e-9)).all()
        assert (ball.norm(z - x) <= ball.eps * (1 + 1e-9)).all()
        if isinstance(attack, APGD):
            along = along[error(regressor, x, y).sign() == (1 if upwards else -1)]
        assert torch.allclose(along, reach.expand_as(along), rtol=2e-2 if isinstance(attack, PGD) else 1e-6)


@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_rows_break_exactly_where_the_closed_form_says_so(ball, regressor, inputs, seed):
    """|error| + eps ||w||_dual beyond the tolerance, over both directions; a thin band between is left open."""
    x, y = inputs
    tolerance = RegressionTolerance(float(ball.eps * regressor.weight.detach().norm(BALLS[ball]) + 0.15))
    largest = error(regressor, x, y).abs() + tolerance.tolerance - 0.15
    clear = (largest - tolerance.tolerance).abs() > 0.02
    expected = largest > tolerance.tolerance
    assert expected.any()
    assert not expected.all()
    for attack in (
        PGD(ball, steps=100, loss=AbsoluteError(), goal=tolerance, random_start=False),
        APGD(ball, loss=AbsoluteError(), goal=tolerance, restarts=5),
    ):
        broken = tolerance.margin(regressor(attack(regressor, x, y, generator=seed(0))).detach(), y) < 0
        assert torch.equal(broken[clear], expected[clear])


def test_a_row_outside_its_tolerance_stays_as_it_is(regressor, inputs, seed):
    """As a row does that a classifier gets wrong."""
    x, y = inputs
    z = PGD(L0(1), loss=AbsoluteError(), goal=RegressionTolerance(0.1))(regressor, x, y, generator=seed(0))
    out = error(regressor, x, y).abs() > 0.1
    assert out.any()
    assert torch.equal(z[out], x[out])


def test_numbers_and_classes_are_not_mixed(regressor, inputs, cnn, sample, seed):
    """Loss against goal, y against goal, a classifier for a regression, and a tolerance that is none."""
    x, y = inputs
    for loss, goal in (
        (CrossEntropy(), RegressionTolerance(1.0)),
        (AbsoluteError(), Untargeted()),
        (SignedError(), Targeted()),
    ):
        for attack in (PGD, APGD, FGSM):
            with pytest.raises(ValueError, match="one is about numbers, the other about classes"):
                attack(Linf(0.1), loss=loss, goal=goal)(regressor, x, y, generator=seed(0))
    attack = PGD(Linf(0.1), loss=AbsoluteError(), goal=RegressionTolerance(1.0))
    for wrong in (y.long(), y[:, None], y * torch.nan):
        with pytest.raises(ValueError, match=r"finite floats of shape \(N,\)"):
            attack(regressor, x, wrong, generator=seed(0))
    with pytest.raises(ValueError, match=r"one number, \(N, 1\), got \(200, 10\)"):
        attack(cnn, sample[0], sample[1].float(), generator=seed(0))
    with pytest.raises(ValueError, match="tolerance must be"):
        RegressionTolerance(-1.0)
