"""SimBA: one direction after another, on scores alone."""

import copy
import itertools

import pytest
import scipy.fft
import torch

from aisec_lab.attacks import DCT, L1, L2, Linf, Oracle, Pixels, SimBA, Targeted
from aisec_lab.core import RowNoise

WIDE = L2(100.0)
BASES = [Pixels(), DCT(0.5)]


def flat(x):
    return x.flatten(1)


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (2, 1, 8, 8)])
def test_the_waves_are_those_of_scipy_and_each_is_tried_once(shape, seed):
    """`scipy.fft.idctn` of a unit vector; the low ones first, every row in an order of its own."""
    x = torch.rand(shape, generator=seed(0), dtype=torch.float64)
    basis, size = DCT(0.5), x[0].numel()
    order = basis.order(x, RowNoise(x, seed(1)))
    assert torch.equal(order.sort(1).values, torch.arange(size).expand(len(x), -1))
    assert not torch.equal(order[0], order[1])
    for number in range(size):
        unit = torch.zeros(size, dtype=torch.float64)
        unit[number] = 1
        wave = scipy.fft.idctn(unit.view(shape[1:]).numpy(), axes=(1, 2), norm="ortho")
        mine = basis.directions(x, torch.full((len(x),), number))
        assert torch.allclose(mine, torch.from_numpy(wave).expand_as(x), atol=1e-12)
    down, right = round(shape[2] / 2), round(shape[3] / 2)
    low = [n for n in range(size) if n // shape[3] % shape[2] < down and n % shape[3] < right]
    assert set(order[0, : len(low)].tolist()) == set(low)


@pytest.mark.parametrize("basis", BASES, ids=repr)
def test_noise_in_a_basis_is_white_inside_its_first_directions(basis, seed):
    """The covariance of 20,000 draws is the projection onto them."""
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    draws = flat(basis.normal(x, 20_000, seed(0)))
    covariance = draws.T @ draws / len(draws)
    numbers = torch.arange(16) if isinstance(basis, Pixels) else torch.tensor([0, 1, 4, 5])
    first = flat(basis.directions(x.expand(len(numbers), -1, -1, -1), numbers))
    assert torch.allclose(covariance, first.T @ first, atol=0.05)


@pytest.mark.parametrize("basis", [Pixels(), DCT(1.0)], ids=repr)
def test_on_a_linear_model_each_direction_gains_epsilon_times_its_slope(basis, linear, seed):
    """Exactly: for one query where the step along it helps, for two where the step back does, round after round."""
    model, epsilon, queries = linear(16), 0.01, 50
    x = 0.4 + 0.2 * torch.rand(6, 1, 4, 4, generator=seed(1), dtype=torch.float64)
    with torch.no_grad():
        model[1].bias[0] += 10  # far from the boundary
        y = torch.zeros(6, dtype=torch.int64)
        attack = SimBA(WIDE, queries=queries, epsilon=epsilon, basis=basis)
        x_adv = attack(model, x, y, generator=seed(0))
        lead = (model[1].weight[0] - model[1].weight[1]).view(1, 1, 4, 4).expand(16, -1, -1, -1)
        slopes = (lead * basis.directions(lead, torch.arange(16))).flatten(1).sum(1)
        before, after = (model(z)[:, 0] - model(z)[:, 1] for z in (x, x_adv))
    falls = []
    for order in basis.order(x, RowNoise(x, seed(0))):
        left, fall = queries - 1, 0.0
        for slope in itertools.cycle(slopes[order].tolist()):
            left -= 1 if slope < 0 else 2
            if left < 0:
                break
            fall += epsilon * abs(slope)
        falls.append(fall)
    assert torch.allclose(before - after, torch.tensor(falls, dtype=torch.float64), rtol=1e-9)
    assert min(falls) > epsilon * slopes.abs().sum()  # more than one round


def naive(model, x, y, order, basis, epsilon, queries):
    """Algorithm 1 of the paper for one row, in the order given: on probabilities, clipped, no ball."""
    asked, best = 1, model(x).softmax(1)[0, y]
    for number in order:
        if model(x).argmax(1) != y:
            return x, asked
        q = epsilon * basis.directions(x, number[None])
        for step in (q, -q):
            z = (x + step).clamp(0, 1)
            if torch.equal(z, x):
                continue
            if asked == queries:
                return x, asked
            asked += 1
            p = model(z).softmax(1)[0, y]
            if p < best:
                x, best = z, p
                break
    return x, asked


@pytest.mark.parametrize("basis", BASES, ids=repr)
def test_it_walks_as_the_paper_says_row_by_row(basis, cnn, sample, seed):
    """The same points as a plain loop over one row at a time, for as many queries; at faces of the box too."""
    model = copy.deepcopy(cnn).double()
    x, y = sample[0][:12].double(), sample[1][:12]
    order = basis.order(x, RowNoise(x, seed(0)))
    oracle = Oracle(model)
    x_adv = SimBA(WIDE, queries=70, basis=basis)(oracle, x, y, generator=seed(0))
    with torch.no_grad():
        rows = [naive(model, x[i : i + 1], y[i], order[i], basis, 0.2, 70) for i in range(12)]
    walked = torch.cat([z for z, _ in rows])
    assert oracle.queries == sum(asked for _, asked in rows)
    assert oracle.queries < 12 * 70
    won = torch.tensor([asked < 70 for _, asked in rows])
    assert torch.allclose(x_adv[won], walked[won], atol=1e-12)


@pytest.mark.parametrize("basis", BASES, ids=repr)
@pytest.mark.parametrize("ball", [Linf(0.15), L2(0.8)], ids=repr)
def test_points_are_feasible_queries_counted_and_batches_unnoticed(ball, basis, cnn, sample, seed):
    """Inside ball and box; rows that are wrong are asked about once; no row more often than allowed."""
    x, y = sample[0][:30], sample[1][:30]
    y = torch.where(torch.arange(30) < 3, (y + 1) % 10, y)
    attack, before = SimBA(ball, queries=40, basis=basis), x.clone()
    for row in (0, 10, 20):
        oracle = Oracle(cnn)
        attack(oracle, x[row : row + 1], y[row : row + 1], generator=seed(0))
        assert oracle.queries == 1 if row < 3 else 1 < oracle.queries <= 40
    x_adv = attack(cnn, x, y, generator=seed(0))
    assert torch.equal(x, before)
    assert torch.equal(x_adv[:3], x[:3])
    assert (ball.norm(x_adv - x) <= ball.eps * (1 + 1e-5)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    order = torch.randperm(30, generator=seed(2))
    shuffled = attack(cnn, x[order], y[order], generator=seed(0))
    assert torch.isclose(shuffled, x_adv[order], atol=1e-5).flatten(1).all(1).double().mean() >= 0.95


def test_more_queries_win_more_and_a_target_is_reached(cnn, sample, seed):
    """The search goes round the basis again once it is through: 64 pixels, up to 250 queries."""
    x, y = sample
    standing = [
        (cnn(SimBA(L2(2.0), queries=q)(cnn, x, y, generator=seed(0))).argmax(1) == y).double().mean() for q in (20, 200)
    ]
    assert standing[1] < 0.5 * standing[0]
    target = (y + 1) % 10
    x_adv = SimBA(L2(4.0), queries=250, goal=Targeted())(cnn, x, target, generator=seed(0))
    assert (cnn(x_adv).argmax(1) == target).double().mean() > 0.6


def test_tables_have_pixels_but_no_waves_and_what_is_impossible_is_refused(linear, seed):
    """Rows (N, D) in the Cartesian basis; one line each for the rest."""
    model, x = linear(12), torch.full((2, 12), 0.5, dtype=torch.float64)
    y = model(x).argmax(1)
    assert (model(SimBA(L2(2.0), queries=60)(model, x, y, generator=seed(0))).argmax(1) != y).all()
    with pytest.raises(ValueError, match="images .* use Pixels"):
        SimBA(WIDE, basis=DCT())(model, x, y, generator=seed(0))
    with pytest.raises(ValueError, match="not L1"):
        SimBA(L1(1))
    for settings in ({"queries": 1}, {"epsilon": 0.0}):
        with pytest.raises(ValueError, match="queries must be at least 2 and epsilon positive"):
            SimBA(WIDE, **settings)
    with pytest.raises(ValueError, match="share of the frequencies"):
        DCT(0.0)
    assert SimBA(WIDE)(model, x[:0], y[:0], generator=seed(0)).shape == (0, 12)
