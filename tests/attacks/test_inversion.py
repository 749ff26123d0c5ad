"""Model inversion: steps by hand, where it ends, and what it shows of a trained and of an untrained model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aisec_lab.attacks.inference.inversion import MIFace, PriorInversion, similarity
from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import MLP, Fit

CLASSES = torch.arange(10)


@pytest.fixture(scope="module")
def rows(digits):
    return Dataset(digits[0][400:], digits[1][400:], tuple("0123456789"), "digits")


@pytest.fixture(scope="module")
def public(digits):
    """The mean of rows that the model has not seen."""
    return digits[0][:400].mean(0)


@pytest.fixture(scope="module")
def mlp(rows):
    model = MLP()((1, 8, 8), 10, generator=torch.Generator().manual_seed(0))
    Fit(epochs=8, learning_rate=0.01)(model, rows, Standard(), generator=torch.Generator().manual_seed(1))
    return model


ATTACKS = [
    lambda model, mean: MIFace(steps=300)(model, CLASSES, start=mean.expand(10, 1, 8, 8)),
    lambda model, mean: PriorInversion(steps=200)(model, CLASSES, mean=mean),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=["MIFace", "PriorInversion"])
def test_a_trained_model_shows_its_classes_and_another_does_not(attack, mlp, rows, public, seed):
    """Each picture looks like its own class more than like others; in the box; the model is sure of it."""
    found = attack(mlp, public)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (mlp(found).softmax(1).diag() > 0.9).all()
    alike = similarity(found, rows)
    assert (alike.argmax(1) == CLASSES).sum() >= 9
    assert alike.diag().mean() > 0.5
    blind = similarity(attack(MLP()((1, 8, 8), 10, generator=seed(5)).eval(), public), rows)
    assert (blind.argmax(1) == CLASSES).sum() <= 4
    assert blind.diag().mean() < 0.2


def test_a_step_is_that_of_the_paper(mlp, seed):
    """x - step * grad(1 - p), into the box; twice, against autograd; the start comes back where it is better."""
    y, x = torch.tensor([3, 8]), torch.rand(2, 1, 8, 8, generator=seed(0))
    start = x
    for _ in range(2):
        x = x.detach().requires_grad_()
        cost = 1 - mlp(x).softmax(1)[torch.arange(2), y]
        x = (x - 0.3 * torch.autograd.grad(cost.sum(), x)[0]).clamp(0, 1)
    after = 1 - mlp(x).softmax(1)[torch.arange(2), y]
    assert (after < cost).all()
    torch.testing.assert_close(MIFace(steps=2, step_size=0.3, confidence=1.0)(mlp, y, start=start), x.detach())
    sure = MIFace(steps=500, confidence=0.6)(mlp, y, start=start)
    assert (mlp(sure).softmax(1)[torch.arange(2), y] > 0.6).all()
    assert torch.equal(MIFace(steps=5, confidence=0.6)(mlp, y, start=sure), sure)


class Counting(nn.Module):
    """A model that gives each class the same chance everywhere, and counts how often it is asked."""

    def __init__(self):
        super().__init__()
        self.weight, self.asked = nn.Parameter(torch.zeros(4, 2)), 0

    def forward(self, x):
        self.asked += 1
        return x @ self.weight


def test_it_ends_where_nothing_is_gained():
    """No cost below the largest of the last five: after as many steps, not after a thousand."""
    model = Counting().eval()
    start = torch.full((1, 4), 0.5)
    found = MIFace(steps=1000, patience=5)(model, torch.tensor([0]), start=start)
    assert torch.equal(found, start)
    assert model.asked < 12


def test_blur_is_the_mean_of_neighbours(seed):
    """All of it, on an image with one bright pixel, after a step of no size to speak of."""
    model = MLP(())((1, 5, 5), 2, generator=seed(0)).eval()
    start = torch.zeros(1, 1, 5, 5)
    start[0, 0, 2, 2] = 0.9
    attack = MIFace(steps=1, step_size=1e-9, blur=1.0)
    blurred = attack._process(start)
    assert blurred[0, 0, 1:4, 1:4].flatten().tolist() == pytest.approx([0.1] * 9)
    assert blurred.sum().item() == pytest.approx(0.9)
    assert attack(model, torch.tensor([0]), start=start).shape == start.shape


def test_the_prior_is_an_optimum(seed):
    """On a linear model the slope vanishes inside the box; of one that learned nothing, the mean image comes back."""
    model = MLP(())((1, 4, 4), 3, generator=seed(0)).eval()
    with torch.no_grad():
        model[2].weight *= 0.3
    y, mean = torch.tensor([0, 1, 2]), torch.full((1, 4, 4), 0.5)
    found = PriorInversion(steps=1500, step_size=0.003, total_variation=0, closeness=40)(model, y, mean=mean)
    assert found.min() > 0
    assert found.max() < 1
    x = found.clone().requires_grad_()
    cost = F.cross_entropy(model(x), y) + 40 * (x - mean).square().mean()
    assert torch.autograd.grad(cost, x)[0].abs().max() < 1e-3
    with torch.no_grad():
        model[2].weight.zero_()
    assert torch.allclose(PriorInversion(steps=50)(model, y, mean=mean), mean.expand(3, 1, 4, 4), atol=1e-6)


def test_resemblance_knows_each_class_by_its_mean(rows):
    """Whatever the contrast; what all classes have in common counts for none."""
    means = torch.stack([rows.x[rows.y == c].mean(0) for c in range(10)])
    common = means.mean(0)
    for contrast in (1, 0.3):
        alike = similarity(common + contrast * (means - common), rows)
        assert alike.diag().tolist() == pytest.approx([1] * 10, abs=1e-4)
        assert (alike.argmax(1) == CLASSES).all()
    opposite = similarity(common - 0.2 * (means - common), rows)
    assert opposite.diag().tolist() == pytest.approx([-1] * 10, abs=1e-4)


def test_what_makes_no_sense_is_refused(mlp, rows):
    """At the door."""
    start = torch.zeros(1, 1, 8, 8)
    table = Dataset(torch.rand(3, 4), torch.tensor([0, 1, 1]), ("a", "b", "c"), "table")
    cases = [
        (lambda: MIFace(steps=0), "must be positive"),
        (lambda: MIFace(confidence=0), "confidence must lie"),
        (lambda: PriorInversion(closeness=-1), "not negative"),
        (lambda: MIFace()(mlp, torch.tensor([10]), start=start), "classes must lie in 0..9"),
        (lambda: MIFace()(mlp, torch.tensor([1]), start=start + 2), "pixels must lie in"),
        (lambda: MIFace(blur=0.5)(mlp, torch.tensor([1]), start=torch.zeros(1, 64)), "blur takes images"),
        (lambda: PriorInversion()(mlp, torch.tensor([10]), mean=start[0]), "classes must lie in 0..9"),
        (lambda: similarity(start[:, :, :4], rows), "shape of the rows"),
        (lambda: similarity(table.x, table), "no row of the classes \\[2\\]"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
