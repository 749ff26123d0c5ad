"""Inspection and repair of finished models: what is found, what is mended, and what is left as it was."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aisec_lab.attacks import Backdoor, Checkerboard
from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard, scores_of, threshold_at
from aisec_lab.defenses.backdoors.cleanse_unlearning import NeuralCleanseUnlearning
from aisec_lab.defenses.backdoors.ibau import FIXED, IBAU, hypergradient
from aisec_lab.defenses.backdoors.neural_cleanse import NeuralCleanse
from aisec_lab.defenses.backdoors.pruning import FinePruning, activity, layer_to_prune
from aisec_lab.defenses.backdoors.strip import STRIP
from aisec_lab.models import CNN, MLP, Fit, ResNet, StridedCNN, logits_of

TRIGGER, TARGET = Checkerboard(2), 3
QUICK = NeuralCleanse(rounds=2)
REPAIRS = [
    FinePruning(fit=Fit(epochs=2)),
    IBAU(rounds=2),
    NeuralCleanseUnlearning(NeuralCleanse(rounds=2, threshold=0.1)),
]


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def backdoored(splits):
    """A CNN with a backdoor to class 3: 5 % of its training rows wore the mark."""
    poisoned = Backdoor(TRIGGER, TARGET, 0.05)(splits.train, generator=seed(0))
    model = CNN()((1, 8, 8), 10, generator=seed(0))
    Fit()(model, poisoned.dataset, Standard(), generator=seed(0))
    return model


@pytest.fixture(scope="module")
def clean(splits):
    """Rows that the model has not seen."""
    return splits.splits["clean"].subset(torch.arange(200))


def right(model, rows):
    return (logits_of(model, rows.x).argmax(1) == rows.y).double().mean().item()


def opened(model, test):
    """Attack success: of the images that are not of the target class."""
    stamped = TRIGGER.apply(test.x[test.y != TARGET])
    return (logits_of(model, stamped).argmax(1) == TARGET).double().mean().item()


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_neural_cleanse_finds_the_class_that_a_mark_opens(backdoored, classifier, clean, splits):
    """Only class 3 is suspect, and its mask does what it says on fresh rows; a clean model has no such mask."""
    found = NeuralCleanse()(backdoored, clean, generator=seed(0))
    assert found.suspects == (TARGET,)
    assert found.norms.argmin() == TARGET
    assert torch.allclose(found.norms, found.masks.sum((1, 2, 3)))
    mask, pattern = found.masks[TARGET], found.patterns[TARGET]
    others = splits.test.x[splits.test.y != TARGET]
    sent = logits_of(backdoored, (1 - mask) * others + mask * pattern).argmax(1) == TARGET
    assert sent.double().mean() > 0.9
    innocent = NeuralCleanse()(classifier, clean, generator=seed(0))
    assert found.norms[TARGET] < innocent.norms.min() / 1.5
    assert TARGET not in innocent.suspects


class Pixel(nn.Module):
    """Answers k as far as pixel k of an image is white; an image without any is of class 0."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, x):
        return 40 * x.flatten(1)[:, : self.k] - 30 * (torch.arange(self.k) > 0)


def test_neural_cleanse_comes_to_the_mask_that_is_known():
    """On black images each class but the one they are of needs one pixel, three quarters white, and nothing else."""
    k = 4
    rows = Dataset(torch.zeros(8, 1, 3, 3), torch.arange(8) % 2 * 0, tuple("abcd"), "black")
    rows = Dataset(torch.cat([rows.x, rows.x]), torch.cat([rows.y, rows.y + 1]), rows.classes, rows.name)
    found = NeuralCleanse(rounds=150)(Pixel(k).eval(), rows, generator=seed(0))
    for label in range(1, k):
        assert found.masks[label].flatten().argmax() == label
        assert found.masks[label].flatten()[label] > 0.7
        assert found.norms[label] < 1.3
        assert found.patterns[label].flatten()[label] > 0.9


def test_strip_catches_the_mark(backdoored, classifier, clean, splits):
    """At a false positive rate of 1 % on other clean rows nearly every marked row; a clean model's are like any."""
    fitting, fresh = clean.subset(torch.arange(100)), splits.splits["clean"].subset(torch.arange(100, 397))
    stamped = TRIGGER.apply(splits.test.x[splits.test.y != TARGET])
    caught = []
    for model in (backdoored, classifier):
        fitted = STRIP().fit(fitting.x, fitting.y, model=model)
        above = threshold_at(scores_of(fitted, fresh.x), fpr=0.01)
        caught.append((scores_of(fitted, stamped) > above).double().mean())
        assert (scores_of(fitted, splits.test.x) > above).double().mean() < 0.04
    assert caught[0] > 0.9
    assert caught[1] < 0.2


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_strip_is_its_formula(weight, backdoored, clean):
    """One row and one overlay at a time, in bits; between certain (0) and a guess (log2 of 10)."""
    fitted = STRIP(7, weight).fit(clean.x, clean.y, model=backdoored)
    scores = scores_of(fitted, clean.x[:5])
    for row, score in zip(clean.x[:5], scores, strict=True):
        bits = []
        for overlay in fitted.overlays:
            p = F.softmax(logits_of(backdoored, (weight * (row + overlay)).clamp(0, 1)[None])[0].double(), 0)
            bits.append(-sum(q * math.log2(q) for q in p.tolist() if q > 0))
        assert -score.item() == pytest.approx(sum(bits) / 7, abs=1e-4)
    assert -math.log2(10) <= scores.min() < scores.max() <= 0
    assert len(fitted.overlays.unique(dim=0)) == 7
    assert all((clean.x == overlay).flatten(1).all(1).any() for overlay in fitted.overlays)


def test_fine_pruning_closes_the_door_a_little(backdoored, clean, splits):
    """Pruned units stay pruned through training; the mark opens less often; accuracy stays near."""
    pruned = FinePruning(cap=0.04, fit=None)(backdoored, clean, generator=seed(0))
    repaired = FinePruning(cap=0.04)(backdoored, clean, generator=seed(0))
    layer, units = layer_to_prune(pruned, clean.x)
    gone = (layer.weight == 0).view(len(layer.weight), units, -1).all(2).all(0)
    assert 0 < gone.sum() < units
    assert (layer_to_prune(repaired, clean.x)[0].weight.view(len(layer.weight), units, -1)[:, gone] == 0).all()
    assert right(pruned, clean) >= right(backdoored, clean) - 0.04
    least, most = activity(backdoored, clean.x)[gone].max(), activity(backdoored, clean.x)[~gone].min()
    assert least <= most
    assert opened(repaired, splits.test) < opened(backdoored, splits.test) - 0.1
    assert right(repaired, splits.test) > right(backdoored, splits.test) - 0.04


@pytest.mark.parametrize(
    ("architecture", "units"),
    [(CNN(8), 32), (StridedCNN(8), 16), (MLP((24, 12)), 12), (ResNet(width=8), 32)],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else "",
)
def test_pruning_a_unit_is_as_if_it_were_silent(architecture, units):
    """In each architecture: zeros in the reader's columns do what a channel of zeros does, and nothing else moves."""
    model = architecture((1, 16, 16), 5, generator=seed(0)).eval()
    x = torch.rand(6, 1, 16, 16, generator=seed(1))
    layer, found = layer_to_prune(model, x)
    assert found == units
    assert activity(model, x).shape == (units,)
    channels = [module for module in model.modules() if isinstance(module, nn.Conv2d)]

    def silenced(_, args):
        channelled = args[0].view(len(args[0]), units, -1).clone()
        channelled[:, 2] = 0
        return (channelled.flatten(1),)

    with layer.register_forward_pre_hook(silenced), torch.no_grad():
        expected = model(x)
    with torch.no_grad():
        layer.weight.view(len(layer.weight), units, -1)[:, 2] = 0
        assert torch.allclose(model(x), expected, atol=1e-6)
    assert not channels or channels[-1].out_channels == units


@pytest.mark.parametrize(
    ("repair", "points"), [(NeuralCleanseUnlearning(), 2), (IBAU(), 5)], ids=["Unstamping", "IBAU"]
)
def test_a_repair_closes_the_door(repair, points, backdoored, clean, splits):
    """Under one marked image in ten goes to the target, for at most so many points of accuracy; IBAU is the dearer."""
    repaired = repair(backdoored, clean, generator=seed(0))
    assert opened(backdoored, splits.test) > 0.9
    assert opened(repaired, splits.test) < 0.1
    assert right(repaired, splits.test) >= right(backdoored, splits.test) - points / 100 - 1e-9


def test_where_nothing_is_suspect_nothing_is_mended(backdoored, clean):
    """An inspection that no mask can alarm: the copy is the model, to the bit, and another object."""
    repaired = NeuralCleanseUnlearning(NeuralCleanse(rounds=20, threshold=1e6))(backdoored, clean, generator=seed(0))
    assert repaired is not backdoored
    assert same(repaired, backdoored)


def test_the_hypergradient_is_that_of_the_fixed_point():
    """Of maps whose fixed point is known, A w: one that is there at once, and one that goes half of the way."""
    a = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    w = nn.Parameter(torch.tensor([0.3, -0.7], dtype=torch.float64))
    (expected,) = torch.autograd.grad((a @ w).pow(3).sum() + w.square().sum(), w)
    for pace, error in ((1.0, 1e-12), (0.5, 0.5**FIXED)):
        delta = (a @ w).detach().requires_grad_()
        outer = delta.pow(3).sum() + w.square().sum()
        (got,) = hypergradient(outer, delta + pace * (a @ w - delta), delta, [w])
        (direct,) = torch.autograd.grad(w.square().sum(), w)
        assert torch.allclose(got - direct, (1 - 0.5 * error) * (expected - direct), rtol=error)
        assert not torch.allclose(expected, direct, rtol=0.5)


def test_the_worst_perturbation_is_that_of_a_linear_model():
    """For two classes on grey rows of one class: eps along the difference of the weights."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    rows = Dataset(torch.full((5, 1, 4, 4), 0.5), torch.zeros(5, dtype=torch.int64), ("a", "b"), "grey")
    uphill = (model[1].weight[1] - model[1].weight[0]).detach()
    delta = IBAU(eps=0.3, ascents=6)._worst(model, rows)
    assert torch.allclose(delta.flatten(), 0.3 * uphill / uphill.norm(), atol=1e-4)


@pytest.mark.parametrize("repair", REPAIRS, ids=repr)
def test_a_repair_is_a_copy_and_comes_out_the_same_twice(repair, backdoored, clean):
    """The model stays as it was, to the bit; the copy is another, in evaluation mode, and learns on."""
    before = {name: value.clone() for name, value in backdoored.state_dict().items()}
    once, twice = (repair(backdoored, clean, generator=seed(1)) for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in backdoored.state_dict().items())
    assert same(once, twice)
    assert not same(once, backdoored)
    assert not any(module.training for module in once.modules())
    assert all(weight.requires_grad for weight in once.parameters())


def test_an_inspection_comes_out_the_same_twice(backdoored, clean):
    """With the same generator, and otherwise not."""
    first, again, other = (QUICK(backdoored, clean, generator=seed(number)) for number in (1, 1, 2))
    assert torch.equal(first.masks, again.masks)
    assert torch.equal(first.patterns, again.patterns)
    assert not torch.equal(first.norms, other.norms) or (first.norms == 64).all()


class Scrambled(nn.Module):
    """A model whose last convolution is read by no linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 8)

    def forward(self, x):
        return self.conv(x).flatten(1)


def batch_normed():
    """Convolutions with batch norms."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        ),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )


def test_statistics_of_batch_norms_follow_the_weights_that_are_unlearned(clean, splits):
    """What the last norm expects is what it gets from clean rows, nearer than what it expected before by far."""
    model = batch_normed()
    Fit(epochs=5, learning_rate=0.01)(model, splits.train, Standard(), generator=seed(0))
    repaired = IBAU(rounds=30, batch_size=200)(model, clean, generator=seed(0))
    with torch.no_grad():
        given = repaired[:4](clean.x).transpose(0, 1).flatten(1)
    expected, stale = repaired[4], model[4]
    off = ((given.mean(1) - expected.running_mean) / given.std(1)).abs().mean()
    assert off < 0.2 * ((given.mean(1) - stale.running_mean) / given.std(1)).abs().mean()
    assert ((given.var(1) / expected.running_var).log().abs() < 0.3).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m, d: NeuralCleanse(rounds=0), "must be positive"),
        (lambda m, d: NeuralCleanse(success=1.5), r"success must lie in \(0, 1\]"),
        (lambda m, d: QUICK(m, d.subset((d.y == 1).nonzero()[:, 0]), generator=seed(0)), "two classes or more"),
        (lambda m, d: QUICK(CNN()((1, 8, 8), 10, generator=seed(0)), d, generator=seed(0)), "training mode"),
        (lambda m, d: STRIP(weight=0), "weight lie in"),
        (lambda m, d: STRIP(201).fit(d.x, d.y, model=m), "201 overlays need as many clean rows, got 200"),
        (lambda m, d: FinePruning(cap=1), "cap is a share"),
        (lambda m, d: FinePruning()(Scrambled().eval(), d, generator=seed(0)), "no nn.Linear behind its last conv"),
        (lambda m, d: FinePruning()(nn.Identity().eval(), d, generator=seed(0)), "Identity has no nn.Linear"),
        (lambda m, d: IBAU(eps=0), "must be positive"),
        (lambda m, d: IBAU(batch_size=1)(batch_normed().eval(), d, generator=seed(0)), "need two clean rows or more"),
        (lambda m, d: IBAU()(CNN()((1, 8, 8), 10, generator=seed(0)), d, generator=seed(0)), "training mode"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message, backdoored, clean):
    """With what was given and what is accepted."""
    with pytest.raises(ValueError, match=message):
        make(backdoored, clean)
