"""Poisoning by gradients: rows that match a wrong gradient, and rows that lead a softmax regression astray."""

import pytest
import torch
import torch.nn.functional as F

from aisec_lab.attacks import L2, LabelFlips, Linf
from aisec_lab.attacks.poisoning.gradient_matching import GradientMatching
from aisec_lab.attacks.poisoning.gradient_poisoning import GradientPoisoning, poison_gradient
from aisec_lab.attacks.poisoning.softmax import fit_softmax_regression
from aisec_lab.attacks.training_gradients import cosine_distance, training_gradient
from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import CNN, MLP, Fit, logits_of

NAMES = tuple("0123456789")
VICTIMS = 5


@pytest.fixture(scope="module")
def rows(digits):
    x, y = digits
    return Dataset(x[:1297], y[:1297], NAMES, "digits"), Dataset(x[1297:], y[1297:], NAMES, "digits")


def trained(dataset, number):
    generator = torch.Generator().manual_seed(number)
    model = MLP((512,))(dataset.shape, 10, generator=generator)
    Fit(epochs=20)(model, dataset, Standard(), generator=generator)
    return model


@pytest.fixture(scope="module")
def surrogate(rows):
    return trained(rows[0], 100)


def wanted(model, test, row):
    """A test row, with the class that the model holds for the likeliest of the wrong ones."""
    logits = logits_of(model, test.x[row : row + 1])
    logits[0, test.y[row]] = -torch.inf
    return Dataset(test.x[row : row + 1], logits.argmax(1), NAMES, "target")


def naive(model, x, y):
    """The mean gradient of the rows one by one, through the model's own backward pass, as one long vector."""
    total = 0
    for i in range(len(x)):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        total = total + torch.cat([part.grad.flatten() for part in model.parameters()])
    model.zero_grad(set_to_none=True)
    return total / len(x)


def distance(model, poisoned, targets):
    """One minus the cosine of the poison's mean gradient and the targets', as `naive` computes them."""
    poison = poisoned.dataset.subset(poisoned.poison_mask.nonzero().squeeze(1))
    pair = [naive(model, part.x, part.y) for part in (targets, poison)]
    return 1 - F.cosine_similarity(*pair, dim=0).item()


def test_the_mismatch_is_the_cosine_of_gradients_summed_row_by_row(rows):
    """On a CNN with normalisation, all parameters; and it is differentiable in the rows, by finite differences."""
    train = rows[0]
    model = CNN(8, 32)(train.shape, 10, generator=torch.Generator().manual_seed(0)).eval().double()
    x, y = train.x[:6].double(), train.y[:6]
    z = train.x[6:7].double()
    aim = [part.detach() for part in training_gradient(model, z, y[:1])]
    changed = x.clone().requires_grad_()
    value = cosine_distance(aim, training_gradient(model, changed, y))
    expected = 1 - F.cosine_similarity(naive(model, z, y[:1]), naive(model, x, y), dim=0)
    assert value.item() == pytest.approx(expected.item(), abs=1e-9)
    (grad,) = torch.autograd.grad(value, changed)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    up, down = (cosine_distance(aim, training_gradient(model, x + h * direction, y)).item() for h in (1e-5, -1e-5))
    assert (up - down) / 2e-5 == pytest.approx((grad * direction).sum().item(), rel=1e-4)
    assert all(part.grad is None for part in model.parameters())


@pytest.mark.parametrize("ball", [Linf(0.2), L2(1.0)], ids=repr)
def test_matching_brings_the_gradients_together_and_changes_nothing_else(ball, rows, surrogate):
    """Nearer than the clean rows and than noise of the same size; in ball and box; labels and other rows to the bit."""
    train, test = rows
    targets = wanted(surrogate, test, 0)
    attack = GradientMatching(ball, rate=0.03, steps=40, restarts=2)
    before = train.x.clone()
    made = attack(train, surrogate=surrogate, targets=targets, generator=torch.Generator().manual_seed(0))
    where = made.poison_mask
    assert int(where.sum()) == round(0.03 * len(train))
    assert made.target == int(targets.y[0])
    assert (train.y[where] == made.target).all()
    assert torch.equal(made.dataset.y, train.y)
    assert torch.equal(made.dataset.x[~where], train.x[~where])
    assert torch.equal(train.x, before)
    delta = made.dataset.x[where] - train.x[where]
    assert (ball.norm(delta) <= ball.eps * (1 + 1e-5)).all()
    assert made.dataset.x.min() >= 0
    assert made.dataset.x.max() <= 1
    noisy = train.x.clone()
    noisy[where] += ball.sample(train.x[where], torch.Generator().manual_seed(5))
    after, clean, noise = (
        distance(surrogate, made.__class__(Dataset(x, train.y, NAMES, "digits"), where), targets)
        for x in (made.dataset.x, train.x, noisy)
    )
    assert after < 0.4 * min(clean, noise)
    again = attack(train, surrogate=surrogate, targets=targets, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.dataset.x, made.dataset.x)


def test_more_restarts_never_end_farther_away(rows, surrogate):
    """The first try is the same one, and the nearest is kept."""
    train, test = rows
    targets = wanted(surrogate, test, 1)
    ends = []
    for restarts in (1, 3):
        attack = GradientMatching(Linf(0.2), rate=0.03, steps=15, restarts=restarts)
        made = attack(train, surrogate=surrogate, targets=targets, generator=torch.Generator().manual_seed(0))
        ends.append(distance(surrogate, made, targets))
    assert ends[1] <= ends[0] + 1e-6


def test_models_trained_from_scratch_mistake_the_targets(rows, surrogate):
    """New weights, new order: most targets are taken for what is wanted, none by a clean model; accuracy stays."""
    train, test = rows
    clean = trained(train, 200)
    fooled = knew = 0
    kept = []
    for row in range(VICTIMS):
        targets = wanted(surrogate, test, row)
        attack = GradientMatching(Linf(0.3), rate=0.08, steps=100, restarts=1)
        made = attack(train, surrogate=surrogate, targets=targets, generator=torch.Generator().manual_seed(row))
        victim = trained(made.dataset, 300 + row)
        fooled += int(logits_of(victim, targets.x).argmax() == targets.y)
        knew += int(logits_of(clean, targets.x).argmax() == targets.y)
        kept.append((logits_of(victim, test.x).argmax(1) == test.y).double().mean().item())
    right = (logits_of(clean, test.x).argmax(1) == test.y).double().mean().item()
    assert knew == 0
    assert fooled >= 3
    assert min(kept) > right - 0.03


def columns(x):
    return torch.cat([x.flatten(1).double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)


def test_the_gradient_through_the_optimum_is_what_retraining_shows(rows):
    """Three classes; each coordinate of some rows, by central differences of the whole training."""
    train, test = rows
    keep, seen = ((part.y < 3).nonzero().squeeze(1) for part in rows)
    z, y = columns(train.x[keep][:80, :, 3:6, 2:5]), train.y[keep][:80]
    harmed, truth = columns(test.x[seen][:, :, 3:6, 2:5]), test.y[seen]
    certain = F.one_hot((y + (torch.arange(80) < 5)) % 3, 3).double()  # the first five with a false label
    loss, grad = poison_gradient(z, certain, harmed, truth, 0.05)
    assert loss == pytest.approx(F.cross_entropy(harmed @ fit_softmax_regression(z, certain, 0.05).T, truth).item())

    def moved(row, column, by):
        changed = z.clone()
        changed[row, column] += by
        return poison_gradient(changed, certain, harmed, truth, 0.05)[0]

    for row in (0, 1, 40):
        differences = [(moved(row, j, 1e-4) - moved(row, j, -1e-4)) / 2e-4 for j in range(9)]
        assert torch.allclose(torch.tensor(differences, dtype=torch.float64), grad[row, :9], rtol=1e-3, atol=1e-8)


@pytest.fixture(scope="module")
def cancer():
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = torch.tensor((x - x.min(0)) / (x.max(0) - x.min(0)), dtype=torch.float32)
    whole = Dataset(x, torch.tensor(y), ("malignant", "benign"), "breast_cancer")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return [whole.subset(order[part]) for part in (slice(300), slice(300, 400), slice(400, None))]


@pytest.mark.parametrize("ball", [Linf(0.3), Linf(1.0)], ids=repr)
def test_moved_rows_do_more_harm_than_their_false_labels(ball, cancer):
    """On rows that the attacker has not seen; in ball and box; rows and labels as at random; all others to the bit."""
    train, targets, judge = cancer

    def loss(dataset):
        weight = fit_softmax_regression(columns(dataset.x), F.one_hot(dataset.y, 2).double(), 0.01)
        return F.cross_entropy(columns(judge.x) @ weight.T, judge.y).item()

    made = GradientPoisoning(ball, 0.1)(train, targets=targets, generator=torch.Generator().manual_seed(0))
    flipped = LabelFlips(0.1)(train, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.poison_mask, flipped.poison_mask)
    assert torch.equal(made.dataset.y, flipped.dataset.y)
    assert torch.equal(made.dataset.x[~made.poison_mask], train.x[~made.poison_mask])
    assert (made.dataset.x - train.x).abs().max() <= ball.eps + 1e-6
    harm, chance, clean = loss(made.dataset), loss(flipped.dataset), loss(train)
    assert harm - clean > 1.5 * (chance - clean)
    assert chance > clean


NOBODY = torch.Generator()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d, m: GradientMatching(steps=0), "must be positive"),
        (lambda d, m: GradientMatching(rate=0), "rate is the share"),
        (lambda d, m: GradientMatching()(d, surrogate=m, generator=NOBODY), "no targets"),
        (lambda d, m: GradientMatching()(d, targets=d, generator=NOBODY), "needs a surrogate"),
        (lambda d, m: GradientMatching()(d, surrogate=m, targets=d, generator=NOBODY), "wanted as one class"),
        (
            lambda d, m: GradientMatching(rate=0.5)(
                d, surrogate=m, targets=d.subset(torch.tensor([0])), generator=NOBODY
            ),
            "may be poisoned: choose a rate",
        ),
        (
            lambda d, m: GradientMatching()(
                d, surrogate=m, targets=Dataset(d.x[:1, :, :4], d.y[:1], NAMES, "small"), generator=NOBODY
            ),
            "rows as those of digits",
        ),
        (lambda d, m: GradientPoisoning(steps=0), "must be positive"),
        (lambda d, m: GradientPoisoning()(d, generator=NOBODY), "needs targets"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message, rows, surrogate):
    """With what was given and what is accepted."""
    with pytest.raises(ValueError, match=message):
        make(rows[0], surrogate)


def test_a_surrogate_in_training_mode_is_refused(rows, surrogate):
    """At the door, as evasion attacks do."""
    targets = wanted(surrogate, rows[1], 0)
    model = MLP(())(rows[0].shape, 10, generator=torch.Generator().manual_seed(0)).train()
    with pytest.raises(ValueError, match="training mode"):
        GradientMatching()(rows[0], surrogate=model, targets=targets, generator=NOBODY)
