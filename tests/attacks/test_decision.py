"""HopSkipJump, Boundary, Sign-OPT, GeoDA: on decisions alone, within a number of queries for each row."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from aisec_lab.attacks import (
    DCT,
    L0,
    L1,
    L2,
    Boundary,
    FixedEpsilon,
    GeoDA,
    HopSkipJump,
    Linf,
    Oracle,
    SignOPT,
    SimBA,
    Targeted,
)
from aisec_lab.data import Dataset
from aisec_lab.evaluation import security_curve

ATTACKS = [
    HopSkipJump(L2(0)),
    HopSkipJump(Linf(0)),
    Boundary(),
    SignOPT(L2(0), directions=50, samples=50),
    SignOPT(Linf(0), directions=50, samples=50),
    GeoDA(L2(0)),
    GeoDA(L1(0)),
]
CLOSED = {  # queries, and by how much the distance may be above the closed form
    HopSkipJump(L2(0)): (2500, 0.02),
    HopSkipJump(Linf(0)): (2500, 0.05),
    Boundary(): (2500, 0.01),
    SignOPT(L2(0)): (2000, 1e-3),
    SignOPT(Linf(0)): (2000, 0.03),
    GeoDA(L2(0)): (2500, 0.01),
    GeoDA(Linf(0)): (2500, 1e-3),
    GeoDA(L1(0)): (2500, 0.1),
}
SIZE = 12


def with_queries(attack, queries):
    return replace(attack, queries=queries)


@pytest.fixture
def rows(seed):
    """Float64 rows far from the faces of the box."""
    return 0.4 + 0.2 * torch.rand(30, SIZE, generator=seed(1), dtype=torch.float64)


@pytest.mark.parametrize("attack", CLOSED, ids=repr)
def test_it_converges_to_the_closed_form_on_a_linear_model(attack, rows, linear, seed):
    """The smallest perturbation onto the plane inside the box: |margin| / ||w1 - w0|| where the box does not bind.

    Never below it. HopSkipJump in Linf guesses now and then the sign of a coordinate of small slope, which leaves the
    last percents; GeoDA in L1 the order of two slopes that are nearly equal.
    """
    queries, tolerance = CLOSED[attack]
    model = linear(SIZE)
    logits = model(rows).detach()
    slope = (model[1].weight[1] - model[1].weight[0]).detach()
    rise = logits[:, 0] - logits[:, 1]
    exact = attack.ball.norm(attack.ball.step_to_hyperplane(rows, slope.expand_as(rows), rise))
    inside = attack.ball.step_to_hyperplane(rows, slope.expand_as(rows), 1e3 * rise.sign())  # as far as the box reaches
    assert ((inside * slope).sum(1).abs() > rise.abs()).all()
    dual = {"L2": 2, "Linf": 1, "L1": torch.inf}[attack.ball.name]
    free = torch.isclose(exact, rise.abs() / slope.norm(dual))
    assert free.sum() >= (20 if attack.ball.name != "L1" else 2)  # one coordinate alone soon meets its face
    found = with_queries(attack, queries)(model, rows, logits.argmax(1), generator=seed(0))
    assert (found.distance >= exact * (1 - 1e-9)).all()
    held = torch.ones_like(free) if isinstance(attack, GeoDA) else free  # GeoDA's steps know the box
    assert (found.distance[held] <= exact[held] * (1 + tolerance)).all()


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_points_are_feasible_and_the_distances_true(attack, cnn, sample, seed):
    """In the box; won; as far from x as it says; rows that are wrong as they are untouched, at distance 0."""
    x, y = sample[0][:60], sample[1][:60]
    y = torch.where(torch.arange(60) < 5, (y + 1) % 10, y)
    before = x.clone()
    found = with_queries(attack, 300)(cnn, x, y, generator=seed(0))
    wrong = cnn(x).argmax(1) != y
    assert torch.equal(x, before)
    assert found.x_adv.min() >= 0
    assert found.x_adv.max() <= 1
    assert torch.equal(attack.ball.norm(found.x_adv - x), found.distance)
    assert torch.equal(found.distance == 0, wrong)
    assert torch.equal(found.x_adv[wrong], x[wrong])
    assert (cnn(found.x_adv).argmax(1) != y).double().mean() >= 0.995


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize("queries", [2, 3, 11, 60, 190])
def test_each_row_gets_its_queries_and_not_one_more(attack, queries, cnn, sample, seed):
    """By the count of the oracle, which publishes labels: exactly so many, and for a row that is wrong as it is one."""
    x, y = sample[0][:6], sample[1][:6]
    attack = with_queries(attack, queries)
    for row in range(6):
        oracle = Oracle(cnn, labels_only=True)
        attack(oracle, x[row : row + 1], y[row : row + 1], generator=seed(0))
        assert oracle.queries == queries
    oracle = Oracle(cnn, labels_only=True)
    attack(oracle, x, torch.cat([y[:4], (y[4:] + 1) % 10]), generator=seed(0))
    assert oracle.queries == 4 * queries + 2


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if not isinstance(attack, GeoDA)], ids=repr)
def test_one_run_gives_the_whole_curve_against_queries(attack, rows, linear, seed):
    """What it had after so many queries is what a run of so many gives; GeoDA plans its estimates for the whole run."""
    model = linear(SIZE, classes=4)
    y = model(rows).argmax(1)
    y[:3] = (y[:3] + 1) % 4
    whole = with_queries(attack, 500)(model, rows, y, generator=seed(0))
    curve = torch.stack([whole.within(queries) for queries in (1, 5, 40, 200, 500)])
    assert (curve[1:] <= curve[:-1]).all()
    assert (curve[0] == torch.where(torch.arange(30) < 3, 0.0, torch.inf)).all()
    assert torch.equal(curve[-1], whole.distance)
    for queries in (5, 40, 200):
        short = with_queries(attack, queries)(model, rows, y, generator=seed(0))
        assert torch.equal(short.distance, whole.within(queries))


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_float64_rows_do_not_notice_their_batch_nor_scores_behind_the_labels(attack, cnn, sample, seed):
    """Another order, other batch sizes, an oracle that publishes labels alone: the same points."""
    model, x, y = copy.deepcopy(cnn).double(), sample[0][:20].double(), sample[1][:20]
    attack = with_queries(attack, 200)
    whole = attack(model, x, y, generator=seed(0)).x_adv
    order = torch.randperm(20, generator=seed(2))
    shuffled = attack(model, x[order], y[order], generator=seed(0)).x_adv
    labels = Oracle(model, labels_only=True)
    parts = [attack(labels, x[i : i + 7], y[i : i + 7], generator=seed(0)) for i in range(0, 20, 7)]
    assert torch.allclose(shuffled, whole[order], rtol=0, atol=1e-9)
    assert torch.allclose(torch.cat([part.x_adv for part in parts]), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_a_target_is_reached_from_inputs_of_its_class(attack, cnn, sample, digits, seed):
    """Untargeted noise never shows what a nine looks like; a training image does."""
    x, y = sample[0][:30], sample[1][:30]
    target = (y + 1) % 10
    attack = replace(attack, queries=400, goal=Targeted())
    found = attack(cnn, x, target, generator=seed(0), starts=digits[0][200:])
    reached = found.distance.isfinite()
    assert reached.double().mean() > 0.95
    assert torch.equal(cnn(found.x_adv[reached]).argmax(1), target[reached])


class Stubborn(nn.Module):
    """Class 1 for everything."""

    def forward(self, x):
        return torch.tensor([0.0, 1.0]).expand(len(x), 2)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_what_is_not_found_is_infinitely_far(attack, seed):
    """And untouched, whether or not the start used up the queries."""
    x = torch.rand(3, SIZE, generator=seed(1))
    for queries in (20, 500):
        found = with_queries(attack, queries)(Stubborn().eval(), x, torch.tensor([1, 0, 1]), generator=seed(0))
        assert torch.equal(found.x_adv, x)
        assert found.distance.tolist() == [torch.inf, 0, torch.inf]


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_rows_inside_the_ball_are_searched_no_further(attack, cnn, sample, seed):
    """The same rows are broken within eps as by the full search, for fewer queries."""
    x, y = sample[0][:40], sample[1][:40]
    full = with_queries(attack, 300)(cnn, x, y, generator=seed(0))
    eps = full.distance.median().item()
    counted = Oracle(cnn)
    early = replace(attack, ball=attack.ball.with_eps(eps), queries=300)(counted, x, y, generator=seed(0))
    assert torch.equal(early.distance <= eps, full.distance <= eps)
    assert counted.queries < 0.9 * 300 * 40


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_the_door_is_that_of_every_attack_and_no_rows_are_no_work(attack, cnn, sample, seed):
    """Normalised pixels, unknown classes; an empty batch."""
    x, y = sample
    with pytest.raises(ValueError, match="pixels must lie"):
        attack(cnn, x * 2, y, generator=seed(0))
    with pytest.raises(ValueError, match=r"0\.\.9, the model's"):
        attack(cnn, x, y + 5, generator=seed(0))
    found = attack(cnn, x[:0], y[:0], generator=seed(0))
    assert found.x_adv.shape == x[:0].shape
    assert found.within(10).shape == (0,)


@pytest.mark.parametrize("make", [HopSkipJump, Boundary])
def test_impossible_settings_are_refused(make):
    """When the attack is made, not when it runs."""
    with pytest.raises(ValueError, match="not L1"):
        make(L1(1))
    with pytest.raises(ValueError, match="queries must be at least 2"):
        make(queries=1)
    with pytest.raises(ValueError, match="must be"):
        HopSkipJump(samples=0)
    with pytest.raises(ValueError, match="must be"):
        Boundary(delta=1.0)


@pytest.mark.parametrize(("make", "ball"), [(SignOPT, L1(1)), (GeoDA, L0(1))])
def test_the_balls_that_a_paper_does_not_know_are_refused(make, ball):
    """And queries, samples and lengths that are none."""
    with pytest.raises(ValueError, match=f"not {ball.name}"):
        make(ball)
    for settings in ({"queries": 1}, {"samples": 0}):
        with pytest.raises(ValueError, match="queries must be at least 2"):
            make(**settings)
    with pytest.raises(ValueError, match="step_size positive"):
        SignOPT(step_size=0.0)
    with pytest.raises(ValueError, match="sigma positive"):
        GeoDA(sigma=0.0)


def test_few_frequencies_are_a_better_guess_where_the_model_sees_no_others(seed):
    """GeoDA's subspace: the boundary's normal is one wave, and the estimate is the better the fewer waves are tried."""
    x = 0.5 + torch.zeros(4, 1, 8, 8, dtype=torch.float64)
    x += 0.05 * torch.rand(x.shape, generator=seed(0), dtype=torch.float64)
    wave = DCT(1.0).directions(x[:1], torch.tensor([9]))  # of frequency 1 both ways

    class Wave(nn.Module):
        def forward(self, x):
            lead = (x * wave).flatten(1).sum(1) - 0.3
            return torch.stack([torch.zeros_like(lead), lead], 1)

    y = torch.zeros(4, dtype=torch.int64)
    exact = 0.3 - (x * wave).flatten(1).sum(1)
    starts = (x[:1] + wave).clamp(0, 1)
    basis = [DCT(0.25), DCT(1.0)]
    few, all_of_them = (
        GeoDA(queries=300, basis=each)(Wave().eval(), x, y, generator=seed(1), starts=starts).distance / exact
        for each in basis
    )
    assert (few < 1.02).all()
    assert few.mean() < all_of_them.mean()


def test_a_subspace_of_waves_is_for_images(linear, seed):
    """One line, with the mend."""
    with pytest.raises(ValueError, match="images .* use Pixels"):
        GeoDA(basis=DCT(0.5))(
            linear(SIZE), torch.full((2, SIZE), 0.5).double(), torch.tensor([0, 1]), generator=seed(0)
        )


@pytest.mark.parametrize(
    "attack",
    [
        FixedEpsilon(L2(0.5), SignOPT(queries=150, directions=10, samples=30)),
        FixedEpsilon(L2(0.5), GeoDA(queries=150, samples=30)),
        SimBA(L2(0.5), queries=60),
    ],
    ids=lambda attack: type(getattr(attack, "attack", attack)).__name__,
)
def test_a_security_curve_falls_with_the_radius(attack, cnn, sample):
    """Held to a ball; no point outside it."""
    dataset = Dataset(sample[0][:20], sample[1][:20], tuple("0123456789"), "digits")
    rows, x_adv = security_curve(attack, cnn, dataset, [1.5], seed=0)
    assert (rows["size"] <= rows.level * (1 + 1e-5)).all()
    broken = (rows.adversarial != rows.label).groupby(rows.level).mean()
    assert broken[1.5] > broken[0.5]
    assert x_adv.shape == dataset.x.shape
