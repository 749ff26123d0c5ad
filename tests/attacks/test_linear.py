"""Closed forms: on a linear model the largest fall of the margin inside ball and box is known."""

import numpy as np
import pytest
import torch

from aisec_lab.attacks import APGD, FGSM, L0, L1, L2, PGD, Linf, Margin, Targeted, TargetedAPGD, TargetedMargin

ROWS, SIZE = 40, 12


def largest_fall(ball, slope, x):
    """max of slope . delta over ball and box, for one row in float64, without the code under test."""
    room = np.where(slope > 0, 1 - x, x)
    gain, order = np.abs(slope), np.argsort(-np.abs(slope))
    if ball.name == "Linf":
        return (gain * np.minimum(room, ball.eps)).sum()
    if ball.name == "L1":  # fill the steepest coordinates first
        before = np.concatenate([[0], np.cumsum(room[order])[:-1]])
        return (gain[order] * np.clip(ball.eps - before, 0, room[order])).sum()
    if ball.name == "L0":
        return np.sort(gain * room)[::-1][: ball.eps].sum()
    low, high = 0.0, 1e9  # L2: min(t gain, room) for the t that uses up eps
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(np.minimum(middle * gain, room)) < ball.eps else (low, middle)
    return (gain * np.minimum(low * gain, room)).sum()


@pytest.fixture(params=["inside", "at the faces"])
def inputs(request, seed):
    """Float64 rows, classes of a coin: far from the faces of the box, or most coordinates at or near one."""
    x = torch.rand(ROWS, SIZE, generator=seed(1), dtype=torch.float64)
    x = 0.4 + 0.2 * x if request.param == "inside" else (2 * x - 0.5).clamp(0, 1)
    return x, torch.randint(0, 2, (ROWS,), generator=seed(2))


def slopes(model, y):
    """How the margin of class y falls with each coordinate, of a linear model of two classes."""
    weight = model[1].weight.detach()
    return weight[1 - y] - weight[y]


def margins(model, x, y):
    with torch.no_grad():
        logits = model(x)
    rows = torch.arange(len(y))
    return logits[rows, y] - logits[rows, 1 - y]


@pytest.mark.parametrize("ball", [Linf(0.15), L2(0.3), L1(0.7), L0(3), Linf(0.7), L2(1.5), L1(3), L0(9)], ids=repr)
@pytest.mark.parametrize(
    ("attack", "tolerance"),
    [
        (FGSM, {}),
        (lambda ball: PGD(ball, steps=100, loss=Margin(), early_stop=False), {"L2": 2e-3, "L1": 1e-2, "L0": 1e-4}),
        (lambda ball: APGD(ball, steps=100, loss=Margin()), {"L2": 1e-6, "L1": 1e-6}),
    ],
    ids=["FGSM", "PGD", "APGD"],
)
def test_the_margin_falls_as_far_as_it_can(attack, tolerance, ball, inputs, linear, seed):
    """Of rows that stay right: to the closed form, never beyond; of the others the attack need not go on."""
    x, y = inputs
    model = linear(SIZE)
    x_adv = attack(ball)(model, x, y, generator=seed(0))
    fall = (margins(model, x, y) - margins(model, x_adv, y)).numpy()
    expected = np.array([largest_fall(ball, s, r) for s, r in zip(slopes(model, y).numpy(), x.numpy(), strict=True)])
    assert (fall <= expected * (1 + 1e-9)).all()
    right = margins(model, x_adv, y).numpy() >= 0 if isinstance(attack(ball), APGD) else np.ones(ROWS, bool)
    assert (fall[right] >= expected[right] * (1 - tolerance.get(ball.name, 1e-9))).all()


@pytest.mark.parametrize("ball", [Linf(0.15), L2(0.4), L1(0.8), L0(1)], ids=repr)
def test_rows_break_exactly_where_the_closed_form_says_so(ball, inputs, linear, seed):
    """A row is won if and only if its margin is below the largest fall; a thin band between is left open."""
    x, y = inputs
    model = linear(SIZE)
    before = margins(model, x, y).numpy()
    expected = np.array([largest_fall(ball, s, r) for s, r in zip(slopes(model, y).numpy(), x.numpy(), strict=True)])
    clear = np.abs(before - expected) > 5e-3 * expected
    target = 1 - y
    attacks = {
        "PGD": (PGD(ball, steps=100), y),
        "APGD": (APGD(ball, steps=100), y),
        "APGD-T": (TargetedAPGD(ball, steps=100, loss=TargetedMargin()), y),
        "targeted PGD": (PGD(ball, steps=100, goal=Targeted()), target),
        "targeted APGD": (APGD(ball, steps=100, goal=Targeted()), target),
    }
    assert (before < expected).any()
    assert (before >= expected).any()
    for name, (attack, classes) in attacks.items():
        broken = margins(model, attack(model, x, classes, generator=seed(0)), y).numpy() < 0
        assert (broken == (before < expected))[clear].all(), name


@pytest.mark.parametrize("ball", [Linf(0.15), L2(0.3), L1(0.7)], ids=repr)
def test_far_from_the_box_the_fall_is_eps_times_the_dual_norm(ball, linear, seed):
    """The check of the check: eps ||w1 - w0||_dual."""
    x, y = torch.full((4, SIZE), 0.5, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    slope = slopes(linear(SIZE), y)
    dual = {"Linf": 1, "L2": 2, "L1": torch.inf}[ball.name]
    if ball.name == "L1":
        ball = ball.with_eps(0.4)  # one coordinate has room for it
    expected = ball.eps * slope.norm(dual, dim=1)
    assert [largest_fall(ball, s, r) for s, r in zip(slope.numpy(), x.numpy(), strict=True)] == pytest.approx(
        expected.tolist()
    )
