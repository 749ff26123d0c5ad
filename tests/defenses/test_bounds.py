"""Bounds: true for every point, exact where they can be, and as tight as the papers' arithmetic makes them."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn
from torch.nn.utils import parametrizations, prune

from aisec_lab.attacks import APGD, L1, L2, Linf, Margin
from aisec_lab.defenses import crown_margin, ibp_margin
from aisec_lab.defenses.bounds.layers import Interval, backward, forward
from aisec_lab.defenses.bounds.relaxation import minimum_over_ball
from aisec_lab.models import CNN, MLP, Normalised, StridedCNN


def seed(number):
    return torch.Generator().manual_seed(number)


def rand(*shape, number):
    return torch.rand(*shape, generator=seed(number), dtype=torch.float64)


def mlp(number, hidden=(5, 4), inputs=3, classes=3):
    """A tiny network with biases, float64."""
    model = MLP(hidden)((inputs,), classes, generator=seed(number)).double().eval()
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias, std=0.5, generator=seed(number))
    return model


def convolutions(number):
    """Every kind of layer that has bounds."""
    model = nn.Sequential(
        Normalised([0.4], [-0.7]),
        nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)),
        nn.Conv2d(4, 6, 2, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 3),
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6, generator=seed(number))
    return model.double().eval()


def lead(model, x, y):
    with torch.no_grad():
        logits = model(x)
    others = logits.scatter(1, y[:, None], -torch.inf)
    return logits.gather(1, y[:, None]).squeeze(1) - others.amax(1)


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(0, 10**6),
    eps=st.floats(0, 0.6),
    norm=st.sampled_from([Linf, L2]),
    build=st.sampled_from([mlp, convolutions]),
)
def test_no_point_of_the_ball_is_below_the_bound(number, eps, norm, build):
    """Random points, corners, and the end of an attack; CROWN is nowhere below interval arithmetic."""
    model, ball = build(number), norm(eps)
    shape = (3,) if build is mlp else (1, 7, 7)
    x = (1.4 * rand(4, *shape, number=number) - 0.2).clamp(0, 1)  # some coordinates at a face of the box
    y = torch.arange(4) % 3
    interval, crown = ibp_margin(model, x, y, ball), crown_margin(model, x, y, ball)
    assert (crown >= interval - 1e-9).all()
    inside = [ball.project(x, 4 * eps * (rand(4, *shape, number=k) - 0.5).sign() * (k % 3)) for k in range(30)]
    attacked = APGD(ball, steps=15, loss=Margin())(model, x, y, generator=seed(0)) - x
    worst = torch.stack([lead(model, x + delta, y) for delta in [*inside, attacked]]).amin(0)
    assert (crown <= worst + 1e-9).all()


def least_lead(model, x, y, eps):
    """The exact minimum of the margin in an Linf ball, by mixed-integer programming (Tjeng et al., 2019)."""
    affine = [layer for layer in model if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().numpy() for layer in affine]
    biases = [layer.bias.detach().numpy() for layer in affine]
    weights[0], biases[0] = 2 * weights[0], biases[0] - weights[0].sum(1)  # Normalised() is 2 x - 1
    sizes = [len(x), *(len(b) for b in biases[:-1])]
    starts = np.cumsum([0, *sizes])
    hidden = sum(sizes[1:])
    total, far = starts[-1] + hidden, 1e3  # then come the binary variables; no pre-activation is beyond `far`
    rows, low, high = [], [], []
    for k, (w, b) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
        for i in range(len(b)):
            z, h = np.zeros(total), np.zeros(total)
            z[starts[k] : starts[k + 1]] = w[i]
            h[starts[k + 1] + i] = 1
            on = np.zeros(total)
            on[starts[k + 1] + i + hidden] = 1
            rows += [h - z, h - z + far * on, h - far * on]  # h >= z, h <= z + far (1 - on), h <= far on
            low += [b[i], -np.inf, -np.inf]
            high += [np.inf, b[i] + far, 0]
    ends = Bounds(
        np.concatenate([np.maximum(x - eps, 0), np.zeros(2 * hidden)]),
        np.concatenate([np.minimum(x + eps, 1), np.full(hidden, far), np.ones(hidden)]),
    )
    binary = np.concatenate([np.zeros(starts[-1]), np.ones(hidden)])
    values = []
    for other in {*range(len(biases[-1]))} - {y}:
        cost = np.zeros(total)
        cost[starts[-2] : starts[-1]] = weights[-1][y] - weights[-1][other]
        found = milp(cost, constraints=LinearConstraint(np.array(rows), low, high), bounds=ends, integrality=binary)
        values.append(found.fun + biases[-1][y] - biases[-1][other])
    return min(values)


@pytest.mark.parametrize("number", range(6))
def test_bounds_lie_below_the_exact_minimum_and_meet_it_in_small_balls(number):
    """By enumeration of what each ReLU does. Where none changes its side, CROWN is exact, intervals are not."""
    model = mlp(number)
    x, y = rand(4, 3, number=number), torch.arange(4) % 3
    gaps = []
    for eps in (1e-4, 0.1, 0.3):
        exact = torch.tensor([least_lead(model, row.numpy(), int(c), eps) for row, c in zip(x, y, strict=True)])
        crown, interval = crown_margin(model, x, y, Linf(eps)), ibp_margin(model, x, y, Linf(eps))
        assert (crown <= exact + 1e-6).all()
        assert (interval <= crown + 1e-9).all()
        gaps.append(((exact - crown).mean().item(), (exact - interval).mean().item()))
    assert gaps[0][0] < 1e-6
    assert gaps[0][1] > 1e-5
    assert gaps[1][0] < gaps[1][1] / 2


@pytest.mark.parametrize("ball", [Linf(0.2), L2(0.4)], ids=repr)
def test_crown_is_the_papers_on_one_hidden_layer(ball):
    """Neuron by neuron: the chord above, 0 or z below by the sign of u + l, and the dual norm; inside the box."""
    model = mlp(7, hidden=(20,), inputs=6)
    w1, b1 = 2 * model[2].weight.detach(), model[2].bias.detach() - model[2].weight.detach().sum(1)
    w2, b2 = model[4].weight.detach(), model[4].bias.detach()
    x, y = 0.45 + 0.1 * rand(1, 6, number=1), torch.tensor([1])  # out of reach of the faces
    spread = ball.eps * w1.norm(1 if isinstance(ball, Linf) else 2, dim=1)
    unstable, bounds = 0, []
    for other in (0, 2):
        slope, offset = torch.zeros(6, dtype=torch.float64), b2[1] - b2[other]
        for i in range(20):
            z = w1[i] @ x[0] + b1[i]
            low, high = z - spread[i], z + spread[i]
            c = w2[1, i] - w2[other, i]
            if low >= 0:
                line, shift = 1.0, 0.0
            elif high <= 0:
                line, shift = 0.0, 0.0
            else:
                unstable += 1
                chord = high / (high - low)
                line, shift = (float(high + low > 0), 0.0) if c > 0 else (chord, -chord * low)
            slope, offset = slope + c * line * w1[i], offset + c * (line * b1[i] + shift)
        dual = slope.norm(1 if isinstance(ball, Linf) else 2)
        bounds.append((slope @ x[0] + offset - ball.eps * dual).item())
    assert unstable > 5
    got = crown_margin(model, x, y, ball).item()
    assert got == pytest.approx(max(min(bounds), ibp_margin(model, x, y, ball).item()), rel=1e-9)
    assert got == pytest.approx(min(bounds), rel=1e-9)


@pytest.mark.parametrize("margin", [crown_margin, ibp_margin])
def test_in_a_linear_network_the_bound_is_exact(margin):
    """Any number of affine layers: Linf by the corner; and by CROWN L2, the box included, by what an attack reaches."""
    model = nn.Sequential(Normalised(0.3, 0.2), nn.Conv2d(1, 3, 3, padding=1), nn.AvgPool2d(2), nn.Flatten())
    model.append(nn.Linear(27, 3)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(2 * rand(*parameter.shape, number=parameter.numel()) - 1)
    x, y = (1.6 * rand(30, 1, 6, 6, number=3) - 0.3).clamp(0, 1), torch.arange(30) % 3
    for ball in [Linf(0.15), L2(0.5), L2(2.0)][: 3 if margin is crown_margin else 1]:
        ends = []
        for other in range(3):
            z = x.clone().requires_grad_()
            logits = model(z)
            rows = torch.arange(30)
            (grad,) = torch.autograd.grad((logits[rows, y] - logits[rows, other]).sum(), z)
            end = x + ball.project(x, -1e6 * ball.ascent_direction(grad))
            ends.append((model(end)[rows, y] - model(end)[rows, other]).masked_fill(y == other, torch.inf).detach())
        torch.testing.assert_close(margin(model, x, y, ball), torch.stack(ends).amin(0), rtol=1e-6, atol=1e-6)


def test_the_least_over_an_l2_ball_and_box_is_solved_exactly():
    """Where the box does not bind, the dual norm; where the ball does not, the corner; where both do, between."""
    a, x = rand(5, 40, number=1) - 0.5, rand(5, 40, number=2)
    start = (a * x).sum(1)
    torch.testing.assert_close(minimum_over_ball(L2(1e-4), x, a), start - 1e-4 * a.norm(dim=1))
    torch.testing.assert_close(minimum_over_ball(L2(9.0), x, a), a.clamp(max=0).sum(1))
    reached = (a * (x + L2(1.5).project(x, -1e6 * a))).sum(1)
    torch.testing.assert_close(minimum_over_ball(L2(1.5), x, a), reached, rtol=1e-7, atol=1e-7)
    assert (reached > start - 1.5 * a.norm(dim=1) + 1e-3).all()
    torch.testing.assert_close(minimum_over_ball(L2(1.5), x, torch.zeros_like(a)), torch.zeros(5, dtype=torch.float64))


def test_forward_and_backward_agree_on_every_affine_layer():
    """The end of an interval is what the layer's own linear function attains at a corner."""
    x = rand(2, 1, 7, 7, number=0)
    interval = Interval(x - 0.2, x + 0.3)
    layers = [part for part in convolutions(1).modules() if not isinstance(part, nn.Sequential | nn.ReLU)]
    assert len(layers) == 7
    for layer in layers:
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 4:
            interval = Interval(*(end.expand(2, 4, 7, 7) for end in interval))
        if isinstance(layer, nn.Linear):
            interval = Interval(*(end.flatten(1)[:, :24] for end in interval))
        after = forward(layer, interval)
        size = after.low[0].numel()
        unit = torch.eye(size, dtype=torch.float64).view(size, *after.low.shape[1:])
        a, offset = backward(layer, unit, tuple(interval.low.shape[1:]))
        for row in range(2):
            rows = torch.full((size,), row)
            torch.testing.assert_close(interval.minimum(rows, a) + offset, after.low[row].flatten())
            torch.testing.assert_close(-(interval.minimum(rows, -a) - offset), after.high[row].flatten())


def test_what_has_no_bounds_is_refused():
    """A layer by its name and kind, with the mend; a ball; a model in training mode."""
    x, y = torch.rand(2, 1, 8, 8, generator=seed(0)), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"layer '2', a GroupNorm: take .* such as StridedCNN or MLP"):
        crown_margin(CNN()((1, 8, 8), 10, generator=seed(0)).eval(), x, y, Linf(0.1))
    model = StridedCNN()((1, 8, 8), 10, generator=seed(0))
    with pytest.raises(ValueError, match="training mode"):
        ibp_margin(model, x, y, Linf(0.1))
    with pytest.raises(ValueError, match="bounds know the balls Linf and L2, got L1"):
        ibp_margin(model.eval(), x, y, L1(0.1))
    with pytest.raises(ValueError, match=r"classes must lie in 0..9"):
        crown_margin(model, x, y + 9, Linf(0.1))


COMPUTED = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "weight norm by a hook": nn.utils.weight_norm,
    "spectral norm by a hook": nn.utils.spectral_norm,
    "weight norm": parametrizations.weight_norm,
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize("margin", [ibp_margin, crown_margin])
@pytest.mark.parametrize("kind", COMPUTED)
def test_weights_that_are_computed_are_bounded_as_plain_ones(kind, margin):
    """Their hooks set the signed weights again before each pass, radii or not."""
    torch.manual_seed(0)
    model, x = mlp(0), torch.rand(6, 3, generator=seed(0))
    plain = copy.deepcopy(model)
    layers = [place for place, layer in enumerate(model) if isinstance(layer, nn.Linear)]
    for place in layers:
        COMPUTED[kind](model[place])
    model.eval()
    y = model(x).argmax(1)
    for place in layers:
        plain[place].weight.data = model[place].weight.detach().clone()
    torch.testing.assert_close(margin(model, x, y, Linf(0.1)), margin(plain, x, y, Linf(0.1)))


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def test_a_layer_that_does_more_than_its_kind_has_no_bounds():
    x, y = torch.rand(2, 3, generator=seed(0)), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="no bounds are known for layer '0', a Doubled"):
        ibp_margin(nn.Sequential(Doubled(3, 2)).eval(), x, y, Linf(0.1))
    hooked = nn.Sequential(nn.Linear(3, 2)).eval()
    hooked[0].register_forward_hook(lambda _, args, out: out.flip(1))
    with pytest.raises(ValueError, match="layer '0', a Linear, has hooks, which bounds cannot follow"):
        crown_margin(hooked, x, y, Linf(0.1))
