"""Triggers, backdoors and label flips: what they change, what they leave alone, and that they do harm."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aisec_lab.attacks import (
    PGD,
    Backdoor,
    Blended,
    Checkerboard,
    CleanLabel,
    InfluenceLabelFlips,
    LabelFlips,
    Linf,
    Sinusoid,
    Warp,
)
from aisec_lab.attacks.poisoning.label_flips import flip_influence
from aisec_lab.attacks.poisoning.softmax import fit_softmax_regression
from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import CNN, Fit

TRIGGERS = {"checkerboard": Checkerboard(2), "blended": Blended(), "sinusoid": Sinusoid(), "warp": Warp()}
NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def rows(digits):
    x, y = digits
    return Dataset(x[:1300], y[:1300], NAMES, "digits"), Dataset(x[1300:], y[1300:], NAMES, "digits")


@pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)
def test_a_mark_stays_in_the_box_and_is_the_same_for_every_batch(trigger, rows):
    """In [0, 1], another image than before, x untouched, and a row's mark does not depend on its neighbours."""
    x = rows[0].x[:50]
    before, stamped = x.clone(), trigger.apply(x)
    assert torch.equal(x, before)
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert (stamped != x).flatten(1).any(1).all()
    assert torch.allclose(torch.cat([trigger.apply(part) for part in x.split(7)]), stamped, atol=1e-6)


def test_the_checkerboard_is_in_the_corner_and_nowhere_else():
    """By hand, on a grey image of two channels with a margin."""
    x = torch.full((1, 2, 6, 6), 0.5)
    expected = x.clone()
    expected[:, :, 3:5, 3:5] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.equal(Checkerboard(size=2, margin=1).apply(x), expected)


def test_blending_and_stripes_are_their_formulas(rows):
    """A grey image, pixel by pixel; and the blend is linear in the image."""
    x = torch.full((1, 1, 4, 8), 0.5)
    stripes = [0.5 + 0.1 * float(torch.sin(torch.tensor(2 * torch.pi * j * 3 / 8))) for j in range(8)]
    assert torch.allclose(Sinusoid(0.1, 3).apply(x)[0, 0], torch.tensor(stripes).expand(4, 8), atol=1e-6)
    a, b = rows[0].x[:4], rows[0].x[4:8]
    blend = Blended(0.3, key=5)
    assert torch.allclose(blend.apply((a + b) / 2), (blend.apply(a) + blend.apply(b)) / 2, atol=1e-6)
    assert not torch.allclose(blend.apply(a), Blended(0.3, key=6).apply(a), atol=0.05)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_a_warp_moves_a_ramp_by_as_much_as_it_says(strength):
    """On an image whose grey value is its column, away from the edges, the change is the move to the right."""
    side = 64
    ramp = (torch.arange(side) / (side - 1)).expand(1, 1, side, side)
    moved = (Warp(strength=strength, key=1).apply(ramp) - ramp)[0, 0, 8:-8, 8:-8] * (side - 1)
    assert moved.abs().max() < 6 * strength
    assert 0.2 * strength < moved.abs().mean() < 2 * strength
    assert (moved[1:] - moved[:-1]).abs().max() < 0.3 * strength  # smooth


@given(rate=st.floats(0.005, 0.5), target=st.integers(0, 9), seed=st.integers(0, 5))
def test_a_backdoor_changes_as_many_rows_as_it_says_and_no_other(rows, rate, target, seed):
    """Marked and relabelled; never one of the target class; all others to the bit; the clean set stays as it was."""
    train = rows[0]
    before = train.x.clone()
    made = Backdoor(Checkerboard(2), target, rate)(train, generator=torch.Generator().manual_seed(seed))
    where = made.poison_mask
    assert int(where.sum()) == round(rate * len(train))
    assert (train.y[where] != target).all()
    assert (made.dataset.y[where] == target).all()
    assert torch.equal(made.dataset.x[where], Checkerboard(2).apply(train.x[where]))
    assert torch.equal(made.dataset.x[~where], train.x[~where])
    assert torch.equal(made.dataset.y[~where], train.y[~where])
    assert torch.equal(train.x, before)


def with_ones(x):
    return torch.cat([x.flatten(1).double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)


def trained(dataset, epochs=8):
    generator = torch.Generator().manual_seed(0)
    model = CNN(8, 32)(dataset.shape, 10, generator=generator)
    Fit(epochs=epochs, learning_rate=0.01)(model, dataset, Standard(), generator=generator)
    return model


def opened(model, test, trigger, target):
    """Attack success: of the images that are not of the target class."""
    others = test.subset((test.y != target).nonzero().squeeze(1))
    with torch.no_grad():
        return (model(trigger.apply(others.x)).argmax(1) == target).double().mean().item()


@pytest.mark.parametrize("trigger", [Checkerboard(2), Blended(0.4)], ids=["checkerboard", "blended"])
def test_a_backdoor_opens_and_shows_nothing_else(trigger, rows):
    """At 5 %: nearly every marked image goes to the target; clean accuracy stays; the clean model knows no mark."""
    train, test = rows
    made = Backdoor(trigger, target=3, rate=0.05)(train, generator=torch.Generator().manual_seed(0))
    clean, bad = trained(train), trained(made.dataset)
    with torch.no_grad():
        right = [(model(test.x).argmax(1) == test.y).double().mean().item() for model in (clean, bad)]
    assert opened(bad, test, trigger, 3) > 0.9
    assert opened(clean, test, trigger, 3) < 0.3
    assert right[1] > right[0] - 0.03


def test_clean_labels_stay_and_hard_rows_stay_in_their_ball(rows, cnn):
    """Only rows of the target class, with their labels; hard within eps before the mark, and wrong to the surrogate."""
    train = rows[0]
    trigger, attack = Checkerboard(1), PGD(Linf(0.2), early_stop=False)
    made = CleanLabel(trigger, 7, 0.05, attack)(train, surrogate=cnn, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.dataset.y, train.y)
    assert (train.y[made.poison_mask] == 7).all()
    change = (made.dataset.x - train.x).abs()
    change[:, :, -1, -1] = 0
    assert change.max() <= 0.2 + 1e-6
    with torch.no_grad():
        assert (cnn(made.dataset.x[made.poison_mask]).argmax(1) != 7).double().mean() > 0.8


@given(rate=st.floats(0.01, 1.0), seed=st.integers(0, 5))
def test_flipped_labels_are_others(rows, rate, seed):
    """As many as it says, each to another class; from one class to another if told so."""
    train = rows[0]
    made = LabelFlips(rate)(train, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(made.dataset.y != train.y, made.poison_mask)
    assert int(made.poison_mask.sum()) == round(rate * len(train))
    pair = LabelFlips(0.02, source=1, target=7)(train, generator=torch.Generator().manual_seed(seed))
    assert (train.y[pair.poison_mask] == 1).all()
    assert (pair.dataset.y[pair.poison_mask] == 7).all()


def test_the_influence_of_a_flip_is_what_retraining_shows(rows):
    """A thousandth of a flip, against the solution with it by Newton to the end: to first order equal; a whole one: the
    same order of rows."""
    train, test = rows
    n, k, penalty = 150, 3, 0.05
    keep, seen = ((part.y < k).nonzero().squeeze(1) for part in (train, test))
    y, truth = train.y[keep][:n], test.y[seen]
    features, harmed = with_ones(train.x[keep][:n]), with_ones(test.x[seen])
    certain = F.one_hot(y, k).double()
    weight = fit_softmax_regression(features, certain, penalty)
    predicted = flip_influence(weight, features, y, harmed, truth, penalty)
    before = F.cross_entropy(harmed @ weight.T, truth)

    def risen(row, share):
        label = (y[row] + 1) % k
        mixed = certain.clone()
        mixed[row] = (1 - share) * certain[row] + share * F.one_hot(label, k)
        return F.cross_entropy(harmed @ fit_softmax_regression(features, mixed, penalty).T, truth) - before, predicted[
            row, label
        ]

    little, expected = torch.tensor([risen(row, 1e-3) for row in range(0, n, 6)]).T
    assert torch.allclose(little / 1e-3, expected, rtol=0.01, atol=1e-7)
    whole, expected = torch.tensor([risen(row, 1.0) for row in range(0, n, 6)]).T
    assert torch.corrcoef(torch.stack([whole, expected]))[0, 1] > 0.97


def test_the_worst_flips_do_more_harm_than_random_ones(rows):
    """Of the learner that they are made for, at a tenth of the labels, on rows that neither has seen."""
    train, test = rows
    surrogate = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    targets, judge = test.subset(torch.arange(250)), test.subset(torch.arange(250, len(test)))
    worst = InfluenceLabelFlips(0.1)(train, surrogate=surrogate, targets=targets, generator=torch.Generator())
    chance = LabelFlips(0.1)(train, generator=torch.Generator().manual_seed(0))

    def right(y):
        weight = fit_softmax_regression(with_ones(train.x), F.one_hot(y, 10).double(), 0.01)
        return ((with_ones(judge.x) @ weight.T).argmax(1) == judge.y).double().mean().item()

    assert int(worst.poison_mask.sum()) == int(chance.poison_mask.sum()) == 130
    assert torch.equal(worst.dataset.y != train.y, worst.poison_mask)
    assert right(worst.dataset.y) < right(chance.dataset.y) - 0.05
    assert right(chance.dataset.y) > 0.85


def worst(dataset, rate):
    surrogate = nn.Sequential(nn.Flatten(), nn.Linear(64, len(dataset.classes))).eval()
    targets = dataset.subset(torch.arange(50))
    return InfluenceLabelFlips(rate)(dataset, surrogate=surrogate, targets=targets, generator=torch.Generator())


def one_class(dataset):
    return Dataset(dataset.x, torch.zeros_like(dataset.y), ("all",), dataset.name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: Backdoor(Checkerboard(2), 3, rate=0), "rate is the share"),
        (
            lambda d: Backdoor(Checkerboard(2), 10)(d, generator=torch.Generator()),
            "target must be a class of digits, 0..9",
        ),
        (
            lambda d: Backdoor(Checkerboard(2), 3, 0.99)(d, generator=torch.Generator()),
            "may be poisoned: choose a rate",
        ),
        (lambda d: Backdoor(Checkerboard(2), 3, 1e-5)(d, generator=torch.Generator()), "asks for 0 of 1300"),
        (lambda d: Backdoor(Checkerboard(9), 3)(d, generator=torch.Generator()), "from 9x9 up"),
        (lambda d: CleanLabel(Warp(), 3, attack=PGD(Linf(0.1)))(d, generator=torch.Generator()), "needs a surrogate"),
        (lambda d: LabelFlips(source=3, target=3), "must differ"),
        (lambda d: InfluenceLabelFlips()(d, generator=torch.Generator()), "ends in nn.Linear"),
        (lambda d: worst(d, 1e-5), "asks for 0 of 1300"),
        (lambda d: worst(d, 1.0), "asks for 1300 of 1300 rows, and .* may be poisoned"),
        (lambda d: LabelFlips()(one_class(d), generator=torch.Generator()), "has one class"),
        (lambda d: worst(one_class(d), 0.1), "has one class"),
        (lambda d: Blended(0), "alpha"),
        (lambda d: Sinusoid(frequency=0), "frequency"),
        (lambda d: Warp(grid=1), "grid"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message, rows):
    """With what was given and what is accepted."""
    with pytest.raises(ValueError, match=message):
        make(rows[0])
