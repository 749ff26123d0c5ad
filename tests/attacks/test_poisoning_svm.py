"""Poisoning of a support vector machine: the gradient through its optimum, and the harm done."""

import pytest
import torch

from aisec_lab.attacks.poisoning.svm import SVMPoisoning, append_rows, fit_svm, hinge_gradient
from aisec_lab.data import Dataset
from aisec_lab.models import logits_of

KERNELS = {"linear": None, "rbf": 0.1}


@pytest.fixture(scope="module")
def rows(digits):
    """Threes and sevens: to learn from, to aim at, and to judge by."""
    x, y = digits
    keep = ((y == 3) | (y == 7)).nonzero().squeeze(1)
    whole = Dataset(x[keep], (y[keep] == 7).long(), ("3", "7"), "digits")
    return [whole.subset(torch.arange(*part)) for part in ((0, 60), (60, 120), (120, len(whole)))]


def hinge(model, dataset):
    logits = logits_of(model, dataset.x)
    return (1 - (2 * dataset.y - 1) * (logits[:, 1] - logits[:, 0])).clamp(min=0).mean().item()


def added(dataset, targets, number):
    """The first rows of the targets with the other label."""
    return Dataset(targets.x[:number], 1 - targets.y[:number], dataset.classes, "added")


@pytest.mark.parametrize("gamma", KERNELS.values(), ids=KERNELS)
def test_the_gradient_is_what_retraining_shows(gamma, rows):
    """Along random directions of three added rows and one clean one, by central differences of the whole training."""
    train, targets, _ = rows
    whole = append_rows(train, added(train, targets, 3))
    sides = [2.0 * part.y.double() - 1 for part in (whole, targets)]
    x, harmed = whole.x.flatten(1).double(), targets.x.flatten(1).double()
    loss, grad = hinge_gradient(x, sides[0], harmed, sides[1], 1.0, gamma)
    assert loss == pytest.approx(hinge(fit_svm(whole, 1.0, gamma), targets), abs=1e-5)
    for row in (60, 61, 62, int(grad[:60].abs().sum(1).argmax())):
        direction = torch.randn(64, generator=torch.Generator().manual_seed(row), dtype=torch.float64)
        ends = []
        for h in (1e-4, -1e-4):
            moved = x.clone()
            moved[row] += h * direction
            ends.append(hinge_gradient(moved, sides[0], harmed, sides[1], 1.0, gamma)[0])
        assert (ends[0] - ends[1]) / 2e-4 == pytest.approx((grad[row] @ direction).item(), rel=0.01, abs=1e-6)
    assert grad.any()


@pytest.mark.parametrize("gamma", KERNELS.values(), ids=KERNELS)
def test_moved_rows_do_more_harm_than_their_false_labels(gamma, rows):
    """On rows that the attacker has not seen, at six added to sixty; the clean rows stay to the bit, in the box."""
    train, targets, judge = rows
    attack = SVMPoisoning(6, gamma=gamma)
    made = attack(train, targets=targets, generator=torch.Generator().manual_seed(0))
    assert int(made.poison_mask.sum()) == 6
    assert torch.equal(made.dataset.x[~made.poison_mask], train.x)
    assert torch.equal(made.dataset.y[~made.poison_mask], train.y)
    assert made.dataset.x.min() >= 0
    assert made.dataset.x.max() <= 1
    begin = added(train, train, 6)
    unmoved, moved = append_rows(train, begin), append_rows(train, attack.ascend(train, begin, targets))
    clean, labels, harm = (hinge(fit_svm(part, 1.0, gamma), judge) for part in (train, unmoved, moved))
    assert harm - clean > 2 * (labels - clean) > 0
    again = attack(train, targets=targets, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.dataset.x, made.dataset.x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: SVMPoisoning(0), "must be positive"),
        (lambda d: SVMPoisoning(3, gamma=0), "must be positive"),
        (lambda d: SVMPoisoning(3)(d, generator=torch.Generator()), "no targets"),
        (lambda d: SVMPoisoning(100)(d, targets=d, generator=torch.Generator()), "rate"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message, rows):
    """With what was given and what is accepted."""
    with pytest.raises(ValueError, match=message):
        make(rows[0])
