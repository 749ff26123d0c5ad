"""Minimum-norm attacks: the exact distance on linear models, and what every `MinimumNormResult` promises."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from aisec_lab.attacks import (
    DDN,
    EAD,
    FAB,
    FMN,
    L0,
    L1,
    L2,
    BrendelBethge,
    CarliniWagner,
    DeepFool,
    FixedEpsilon,
    Linf,
    Targeted,
    TargetedFAB,
)
from aisec_lab.models import PassCounter
from tests.attacks.test_linear import largest_fall

ROWS, SIZE = 16, 12
NORMS = {"Linf": Linf(0), "L2": L2(0), "L1": L1(0), "L0": L0(0)}
KNOWN = {
    DeepFool: ("Linf", "L2"),
    CarliniWagner: ("L2",),
    DDN: ("L2",),
    FMN: ("Linf", "L2", "L1", "L0"),
    FAB: ("Linf", "L2", "L1"),
    TargetedFAB: ("Linf", "L2", "L1"),
    EAD: ("L1",),
    BrendelBethge: ("Linf", "L2", "L1"),
}
LONG = {
    EAD: {"steps": 200},
    BrendelBethge: {"steps": 100, "step_size": 0.05},
    CarliniWagner: {"steps": 200},
    DDN: {"steps": 200},
    FMN: {"steps": 200},
    FAB: {"steps": 30},
    TargetedFAB: {"steps": 30},
}
SHORT = {
    EAD: {"steps": 30, "searches": 5, "step_size": 0.05, "beta": 0.005, "first_c": 0.1},
    BrendelBethge: {"steps": 15, "step_size": 0.005},
    CarliniWagner: {"steps": 40, "searches": 5, "step_size": 0.2},
    DDN: {"steps": 25},
    FMN: {"steps": 25},
    FAB: {"steps": 6},
    TargetedFAB: {"steps": 4, "targets": 3},
}


def cases(settings):
    return [
        pytest.param(kind(NORMS[norm], **settings.get(kind, {})), id=f"{kind.__name__}-{norm}")
        for kind, norms in KNOWN.items()
        for norm in norms
    ]


EXACT, CASES = cases(LONG), cases(SHORT)


def exact(ball, slopes, leads, x):
    """The least eps at which the margin to some class falls by its lead, inside the box; by bisection, naively."""

    def enough(eps):
        return any(largest_fall(ball.with_eps(eps), s, x) >= lead for s, lead in zip(slopes, leads, strict=True))

    if ball.name == "L0":
        return next((k for k in range(SIZE + 1) if enough(k)), math.inf)
    low, high = 0.0, float(SIZE)
    if not enough(high):
        return math.inf
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@pytest.fixture(params=["inside", "at the faces"])
def inputs(request, seed):
    """Float64 rows far from the faces of the box, or most coordinates at or near one."""
    x = torch.rand(ROWS, SIZE, generator=seed(1), dtype=torch.float64)
    return 0.4 + 0.2 * x if request.param == "inside" else (2 * x - 0.5).clamp(0, 1)


def exact_distances(ball, model, x, y):
    weight, logits = model[1].weight.detach(), model(x).detach()
    found = []
    for i in range(len(x)):
        others = [k for k in range(len(weight)) if k != y[i]]
        slopes = [(weight[k] - weight[y[i]]).numpy() for k in others]
        found.append(exact(ball, slopes, [(logits[i, y[i]] - logits[i, k]).item() for k in others], x[i].numpy()))
    return torch.tensor(found, dtype=x.dtype)


TOLERANCE = {
    EAD: 0.15,
    BrendelBethge: 1e-9,
    DeepFool: 0.0201,
    CarliniWagner: 5e-3,
    DDN: 2e-3,
    FMN: 1e-3,
    FAB: 5e-3,
    TargetedFAB: 5e-3,
}  # overshoot first


@pytest.mark.parametrize("attack", EXACT)
def test_two_classes_are_crossed_at_the_exact_distance(attack, inputs, linear, seed, request):
    """Never below it, above it by the tolerance; L0 to the coordinate."""
    if isinstance(attack, CarliniWagner) and "faces" in request.node.name:
        pytest.skip("its variable w is infinite at a face, so that it hardly leaves one")
    model = linear(SIZE)
    y = model(inputs).argmax(1)
    expected = exact_distances(attack.ball, model, inputs, y)
    found = attack(model, inputs, y, generator=seed(0))
    assert expected.isfinite().all()
    assert (found.distance >= expected * (1 - 1e-9)).all()
    tolerance = 0 if attack.ball.name == "L0" else TOLERANCE[type(attack)]
    assert (found.distance <= expected * (1 + tolerance)).all()


@pytest.mark.parametrize("attack", [case for case in EXACT if "FAB" in case.id or "Fool" in case.id])
def test_the_nearest_of_several_classes_is_found(attack, inputs, linear, seed):
    """By those that look at every boundary; the others go where the likeliest wrong class is."""
    model = linear(SIZE, classes=5)
    y = model(inputs).argmax(1)
    expected = exact_distances(attack.ball, model, inputs, y)
    distance = attack(model, inputs, y, generator=seed(0)).distance
    assert (distance >= expected * (1 - 1e-9)).all()
    assert (distance <= expected * (1 + TOLERANCE[type(attack)])).all()


@pytest.mark.parametrize("attack", CASES)
def test_what_is_found_is_what_it_says(attack, cnn, sample, seed):
    """In the box, wrong wherever the distance is finite, and that far away; right rows are never at distance 0."""
    x, y = sample[0][:80], sample[1][:80]
    before = x.clone()
    found = attack(cnn, x, y, generator=seed(0))
    with torch.no_grad():
        right, broken = cnn(x).argmax(1) == y, cnn(found.x_adv).argmax(1) != y
    assert found.x_adv.min() >= 0
    assert found.x_adv.max() <= 1
    assert found.x_adv.dtype == x.dtype
    assert not found.x_adv.requires_grad
    finite = found.distance.isfinite()
    assert finite.double().mean() > 0.95
    assert torch.equal(finite, broken)
    assert torch.equal(found.distance[finite], attack.ball.norm(found.x_adv - x)[finite])
    assert torch.equal(found.distance == 0, ~right)
    assert torch.equal(found.x_adv[~right], x[~right])
    assert torch.equal(x, before)
    assert all(p.requires_grad and p.grad is None for p in cnn.parameters())


@pytest.mark.parametrize("attack", CASES)
def test_float64_rows_do_not_notice_their_batch(attack, linear, seed):
    """Another order and other batch sizes, on a linear model in float64: the same points to 1e-9."""
    x = torch.rand(20, 1, 4, 4, generator=seed(1), dtype=torch.float64)
    model = linear(16, classes=5)
    y = model(x).argmax(1)
    whole = attack(model, x, y, generator=seed(0))
    order = torch.randperm(20, generator=seed(2))
    shuffled = attack(model, x[order], y[order], generator=seed(0))
    parts = [attack(model, x[i : i + 7], y[i : i + 7], generator=seed(0)) for i in range(0, 20, 7)]
    assert torch.allclose(shuffled.x_adv, whole.x_adv[order], rtol=0, atol=1e-9)
    assert torch.allclose(torch.cat([part.x_adv for part in parts]), whole.x_adv, rtol=0, atol=1e-9)
    assert torch.allclose(torch.cat([part.distance for part in parts]), whole.distance, rtol=0, atol=1e-9)


class Constant(nn.Module):
    """The same logits for all, with a gradient of zero."""

    def forward(self, x):
        return torch.tensor([1.0, 0.0, 0.5]) + 0 * x.flatten(1)[:, :1]


@pytest.mark.parametrize("attack", CASES)
def test_a_model_that_cannot_be_fooled_is_at_infinity(attack, seed):
    """Not at 0, where giving x back would have put it; rows that are wrong as they are stay at 0."""
    x = torch.rand(6, 1, 3, 3, generator=seed(0))
    found = attack(Constant().eval(), x, torch.tensor([0, 0, 0, 0, 1, 2]), generator=seed(0))
    assert found.distance.tolist() == [math.inf] * 4 + [0, 0]
    assert torch.equal(found.x_adv, x)
    assert attack(Constant().eval(), x[:0], torch.tensor([], dtype=torch.int64), generator=seed(0)).distance.shape == (
        0,
    )


class Fickle(nn.Module):
    """Says 0, but 1 in batches smaller than `rows`; the last row is always 1."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, x):
        one = x.flatten(1).sum(1) * 1e-3 + (1.0 if len(x) < self.rows else -1.0)
        one = torch.where(x.flatten(1)[:, 0] == 1, 1.0, one)
        return torch.stack([torch.zeros_like(one), one], 1)


@pytest.mark.parametrize("attack", CASES)
def test_points_that_do_not_win_when_asked_again_are_not_claimed(attack, seed):
    """Each is asked about as it is returned, in the whole batch."""
    x = 0.5 * torch.rand(5, 9, generator=seed(0))
    x[-1, 0] = 1
    found = attack(Fickle(5).eval(), x, torch.zeros(5, dtype=torch.int64), generator=seed(0))
    reached = Fickle(5)(found.x_adv).argmax(1) == 1
    assert torch.equal(found.distance.isfinite(), reached)
    assert not reached[:-1].all()


@pytest.mark.parametrize("attack", CASES)
def test_one_run_is_the_whole_curve(attack, cnn, sample, seed):
    """A row is broken by the attack held to a ball exactly where its distance is at most the radius."""
    x, y = sample[0][:60], sample[1][:60]
    distance = attack(cnn, x, y, generator=seed(0)).distance
    for level in torch.quantile(distance[distance.isfinite()], torch.tensor([0.2, 0.7])).tolist():
        ball = attack.ball.with_eps(math.ceil(level) if attack.ball.name == "L0" else level)
        x_adv = FixedEpsilon(ball, attack)(cnn, x, y, generator=seed(0))
        with torch.no_grad():
            broken = cnn(x_adv).argmax(1) != y
        assert (attack.ball.norm(x_adv - x) <= ball.eps).all()
        assert torch.equal(x_adv[~broken], x[~broken])
        assert (broken == (distance <= ball.eps)).double().mean() > 0.98  # the last bits of float32 may decide a row


@pytest.mark.parametrize("attack", [c for c in CASES if c.id.startswith(("Carlini", "DDN", "FMN"))])
def test_targeted_search_ends_in_its_target(attack, cnn, sample, seed):
    """Any other class does not count, and costs more to reach than the nearest."""
    x, y = sample[0][:60], sample[1][:60]
    target = (y + 3) % 10
    aimed = replace(attack, goal=Targeted())
    found = aimed(cnn, x, target, generator=seed(0))
    finite = found.distance.isfinite()
    assert finite.double().mean() > 0.9
    assert (cnn(found.x_adv[finite]).argmax(1) == target[finite]).all()
    assert found.distance.median() > attack(cnn, x, y, generator=seed(0)).distance.median()


@pytest.mark.parametrize("attack", [case for case in CASES if "DeepFool" not in case.id])
def test_rows_leave_once_they_are_inside_the_ball(attack, cnn, sample, seed):
    """Where the radius holds every input, the first point that has won will do: a quarter of the passes is saved."""
    x, y = sample[0][:60], sample[1][:60]
    passes = []
    for ball in (attack.ball, attack.ball.with_eps(64)):
        counted = PassCounter(cnn)
        found = replace(attack, ball=ball)(counted, x, y, generator=seed(0))
        assert found.distance.isfinite().double().mean() > 0.9
        passes.append(counted.forward_passes)
    assert passes[1] < 0.75 * passes[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeepFool(L1(0)), "DeepFool knows the balls L2 and Linf, not L1"),
        (lambda: CarliniWagner(Linf(0)), "CarliniWagner knows the ball L2, not Linf"),
        (lambda: EAD(L2(0)), "EAD knows the ball L1, not L2"),
        (lambda: EAD(beta=0), "must be positive"),
        (lambda: DDN(L0(0)), "DDN knows the ball L2, not L0"),
        (lambda: FAB(L0(0)), "FAB knows the balls Linf, L2 and L1, not L0: use FMN"),
        (lambda: TargetedFAB(L0(0)), "not L0: use FMN"),
        (lambda: FixedEpsilon(Linf(0.1), DDN()), "DDN knows the ball L2, not Linf"),
        (lambda: DeepFool(steps=0), "must be positive"),
        (lambda: CarliniWagner(first_c=0), "must be positive"),
        (lambda: DDN(gamma=1), r"gamma in \(0, 1\)"),
        (lambda: FMN(step_size=math.nan), "must be positive"),
        (lambda: FAB(candidates=0), "must be positive"),
        (lambda: TargetedFAB(targets=0), "must be positive"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    """When the attack is made, not when it runs."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("attack", CASES)
def test_the_door_refuses_what_would_be_silently_wrong(attack, cnn, sample, seed):
    """The same door as for every attack."""
    x, y = sample[0][:4], sample[1][:4]
    with pytest.raises(ValueError, match="put the normalisation inside the model"):
        attack(cnn, 4 * x - 2, y, generator=seed(0))
    with pytest.raises(ValueError, match=r"0\.\.9, the model's, got 10"):
        attack(cnn, x, torch.full_like(y, 10), generator=seed(0))
    with pytest.raises(ValueError, match="training mode"):
        attack(nn.Sequential(cnn), x, y, generator=seed(0))


def test_the_exact_distance_is_the_margin_over_the_dual_norm_far_from_the_box(linear):
    """The check of the check."""
    model, x = linear(SIZE), torch.full((1, SIZE), 0.5, dtype=torch.float64)
    y = model(x).argmax(1)
    slope, lead = (model[1].weight[1 - y] - model[1].weight[y]).detach(), model(x).detach().diff().abs()[0, 0]
    for norm, dual in (("Linf", 1), ("L2", 2)):
        expected = lead / slope.norm(dual)
        assert exact_distances(NORMS[norm], model, x, y)[0] == pytest.approx(expected.item(), abs=1e-10)
    assert np.isfinite(exact_distances(NORMS["L0"], model, x, y)[0])
