"""Compression: what goes, what stays, that the copy still answers, and that attacks and ONNX see the same network."""

import copy
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aisec_lab.attacks import PGD, Linf
from aisec_lab.data import Dataset
from aisec_lab.defenses import AdversarialTraining, Standard
from aisec_lab.defenses.compression.compression import SequentialCompression
from aisec_lab.defenses.compression.distillation import KnowledgeDistillation
from aisec_lab.defenses.compression.hydra import HYDRA, Subnetwork
from aisec_lab.defenses.compression.magnitude import MagnitudePruning, sparsity
from aisec_lab.defenses.compression.quantisation import DynamicInt8, StaticInt8, WeightOnly, activation_ranges
from aisec_lab.defenses.compression.structured import StructuredPruning
from aisec_lab.models import CNN, MLP, Fit, ResNet, StridedCNN, TemperedCNN, logits_of
from aisec_lab.models.onnx.export import OnnxClassifier, onnx_bytes

SHORT = Fit(epochs=2)
AGAIN = Fit(epochs=4, learning_rate=0.01)
QUICK = Fit(epochs=2, weight_decay=0.0)
INNER = PGD(Linf(0.1), steps=2, step_size=0.5, early_stop=False)
SHAPE = (1, 8, 8)


class Case(NamedTuple):
    compress: object
    share: float  # of the bytes that may be left of a small CNN's float32 file
    points: float  # of accuracy that may be lost


CASES = {
    "static": Case(StaticInt8(), 0.4, 2),
    "dynamic": Case(DynamicInt8(), 0.4, 2),
    "int4": Case(WeightOnly(), 0.3, 2),
    "magnitude": Case(MagnitudePruning(0.8, rounds=2, fit=AGAIN), 0.5, 8),
    "structured": Case(StructuredPruning(0.5, AGAIN), 0.4, 8),
    "robust": Case(HYDRA(Standard(), 0.8, QUICK, AGAIN), 0.5, 8),
    "student": Case(KnowledgeDistillation(CNN(width=4, hidden=16), Fit(epochs=8, learning_rate=0.01)), 0.5, 8),
    "in turn": Case(SequentialCompression((MagnitudePruning(0.6, 1, AGAIN), StaticInt8())), 0.4, 8),
}


def seed(number):
    return torch.Generator().manual_seed(number)


def right(model, rows):
    return (logits_of(model, rows.x).argmax(1) == rows.y).double().mean().item()


@pytest.fixture(scope="module")
def compressed(classifier, splits):
    """Each compression of the classifier, and whether that stayed as it was, to the bit."""
    before = copy.deepcopy(classifier.state_dict())
    made = {name: case.compress(classifier, data=splits.train, generator=seed(0)) for name, case in CASES.items()}
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert all(each.requires_grad for each in classifier.parameters())
    return made


@pytest.mark.parametrize("name", CASES)
def test_a_compressed_classifier_is_a_smaller_classifier(name, compressed, classifier, splits):
    """In evaluation mode, smaller on disk, nearly as often right; its ONNX file gives the same classes."""
    model, case, test = compressed[name], CASES[name], splits.test
    assert not any(part.training for part in model.modules())
    assert all(each.requires_grad for each in model.parameters())
    content = onnx_bytes(model, SHAPE)
    assert len(content) < case.share * len(onnx_bytes(classifier, SHAPE))
    assert right(model, test) >= right(classifier, test) - case.points / 100
    same = logits_of(OnnxClassifier(content), test.x).argmax(1) == logits_of(model, test.x).argmax(1)
    assert same.double().mean() >= 0.995


@pytest.mark.parametrize("name", CASES)
def test_gradient_attacks_see_through(name, compressed, splits):
    """A strong budget breaks nearly all rows: rounding hides no gradient."""
    rows = splits.test.subset(torch.arange(60))
    x_adv = PGD(Linf(0.3), steps=20)(compressed[name], rows.x, rows.y, generator=seed(0))
    assert (logits_of(compressed[name], x_adv).argmax(1) == rows.y).double().mean() < 0.1


@pytest.mark.parametrize("name", ["static", "dynamic", "int4"])
def test_an_answer_does_not_depend_on_its_neighbours(name, compressed, splits):
    x, model = splits.test.x[:20].double(), compressed[name].double()
    try:
        alone = torch.cat([model(row[None]) for row in x])
        assert torch.allclose(model(x).flip(0), model(x.flip(0)), atol=1e-9)
        assert torch.allclose(model(x), alone, atol=1e-9)
    finally:
        compressed[name].float()


def test_the_smallest_weights_go(classifier, splits):
    """Without training: of all |w| over the deviation of their layer, the lowest 70 % are zero, the rest is kept."""
    pruned = MagnitudePruning(0.7, rounds=1, fit=None)(classifier, data=splits.train, generator=seed(0))
    pairs = [
        (before.weight.detach(), after.weight.detach())
        for before, after in zip(classifier.modules(), pruned.modules(), strict=True)
        if isinstance(before, nn.Linear | nn.Conv2d)
    ]
    relative = torch.cat([(before / before.std(correction=0)).abs().flatten() for before, _ in pairs])
    before, after = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    gone = after == 0
    assert int(gone.sum()) == round(0.7 * len(after))
    assert relative[gone].max() <= relative[~gone].min()
    assert torch.equal(after[~gone], before[~gone])


def test_pruned_weights_stay_pruned(compressed):
    """Through the training of every round, with momentum and weight decay."""
    for name in ("magnitude", "robust"):
        assert sparsity(compressed[name]) == pytest.approx(0.8, abs=0.002)


WIDE = [
    (CNN(8, 16), [(1, 4, 4), (4, 7, 4), (7, 11, 4), (11, 13, 1)]),
    (StridedCNN(8, 10), [(1, 3, 1), (3, 6, 1), (6, 8, 1)]),
    (MLP((9, 6)), [(2, 4, 1), (4, 6, 1)]),
    (TemperedCNN(6, 8), [(0, 3, 1), (3, 7, 1), (7, 9, 1)]),
    (ResNet(width=8), [("4.residual.0", "4.residual.3", 4), ("5.residual.0", "5.residual.3", 4)]),
]


@pytest.mark.parametrize(("network", "chain"), WIDE, ids=lambda value: type(value).__name__)
def test_a_narrower_network_is_the_wide_one_with_silent_channels(network, chain):
    """Zeros where the channels with the smallest filters are read give the same logits, for fewer weights."""
    model = network((1, 16, 16), 5, generator=seed(0)).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.1 * torch.randn(each.shape, generator=seed(each.numel())))
    rows = Dataset(
        torch.rand(9, 1, 16, 16, generator=seed(1)), torch.zeros(9, dtype=torch.int64), tuple("abcde"), "noise"
    )
    pruned = StructuredPruning(0.4, fit=None)(model, data=rows, generator=seed(0))
    if isinstance(network, ResNet):  # each of its blocks; the first of these begins it
        chain = [(f"{place}.residual.0", f"{place}.residual.3", 4) for place in (4, 5, 6)]
    silent = copy.deepcopy(model)
    for writer, reader, together in chain:
        sizes = model.get_submodule(str(writer)).weight.abs().flatten(1).sum(1)
        units = len(sizes) // together
        order = sorted(range(units), key=lambda unit: sizes[unit * together : (unit + 1) * together].sum().item())
        for unit in order[: units - round(0.6 * units)]:
            weight = silent.get_submodule(str(reader)).weight.data
            weight.view(len(weight), len(sizes), -1)[:, unit * together : (unit + 1) * together] = 0
        left = len(pruned.get_submodule(str(writer)).weight)
        assert left == together * round(0.6 * units) < len(sizes)
    assert torch.allclose(pruned(rows.x), silent(rows.x), atol=1e-5)
    assert not torch.allclose(pruned(rows.x), model(rows.x), atol=1e-2)
    pruned(rows.x).sum().backward()
    assert all(each.grad is not None for each in pruned.parameters())


def test_scores_are_learned_straight_through():
    """The gradient of a score is the masked weight's times the weight, with the score's sign, kept or not."""
    weight, x = torch.randn(4, 6, generator=seed(0)), torch.randn(3, 6, generator=seed(1))
    part = Subnetwork(weight, 5)
    masked = part(weight)
    assert torch.equal(masked != 0, weight.abs() >= weight.abs().flatten().sort().values[-5])
    assert torch.equal(masked[masked != 0], weight[masked != 0])
    F.linear(x, masked).square().sum().backward()
    through = (2 * F.linear(x, masked)).T @ x
    assert torch.allclose(part.scores.grad, through * weight * weight.sign(), atol=1e-5)


def test_learned_scores_choose_better_than_magnitude(classifier, splits):
    """At nine weights in ten, none retrained: a lower adversarial loss, and what is left is what was there."""
    objective, rows = AdversarialTraining(INNER), splits.train.subset(torch.arange(500))
    losses = []
    for scoring in (None, QUICK):
        pruned = HYDRA(objective, 0.9, scoring, fit=None)(classifier, data=rows, generator=seed(0))
        losses.append(objective(pruned, rows.x, rows.y, generator=seed(0)).mean().item())
        for before, after in zip(classifier.modules(), pruned.modules(), strict=True):
            if isinstance(before, nn.Linear | nn.Conv2d):
                assert int((after.weight != 0).sum()) == max(1, round(0.1 * before.weight.numel()))
                assert torch.equal(after.weight[after.weight != 0], before.weight[after.weight != 0])
        assert pruned.state_dict().keys() == classifier.state_dict().keys()
    assert losses[1] < 0.8 * losses[0]


def test_calibration_sees_what_layers_read_and_give(classifier, splits):
    """Against the network run layer by layer by hand."""
    found, x = activation_ranges(classifier, splits.train.x), splits.train.x
    assert len(found) == 5
    with torch.no_grad():
        for place, layer in enumerate(classifier):
            given = layer(x)
            if str(place) in found:
                ends = [each.item() for pair in ((x.min(), x.max()), (given.min(), given.max())) for each in pair]
                assert [*found[str(place)][0], *found[str(place)][1]] == pytest.approx(ends, rel=1e-4, abs=1e-4)
            x = given


def test_a_student_looks_at_answers_alone(classifier, splits):
    """Other classes on the same rows teach it the same, to the bit; an untrained teacher teaches it something else."""
    rows = splits.train.subset(torch.arange(200))
    other = Dataset(rows.x, (rows.y + 3) % 10, rows.classes, rows.name)
    blank = CNN(width=8, hidden=32)(SHAPE, 10, generator=seed(9)).eval()
    student = KnowledgeDistillation(MLP((8,)), SHORT)
    weights = [
        student(model, data=data, generator=seed(0))[2].weight
        for model, data in ((classifier, rows), (classifier, other), (blank, rows))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_in_turn_is_one_after_the_other(classifier, splits):
    steps = (MagnitudePruning(0.5, rounds=1, fit=None), StaticInt8(rows=50))
    generator = seed(3)
    byhand = classifier
    for step in steps:
        byhand = step(byhand, data=splits.train, generator=generator)
    together = SequentialCompression(steps)(classifier, data=splits.train, generator=seed(3))
    assert onnx_bytes(together, SHAPE) == onnx_bytes(byhand, SHAPE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: MagnitudePruning(1.0), "sparsity is the share that goes, above 0 and below 1, got 1.0"),
        (lambda: MagnitudePruning(rounds=0), "rounds must be at least 1"),
        (lambda: StructuredPruning(0.0), "share is the share that goes"),
        (lambda: HYDRA(Standard(), scoring=SHORT), "set scoring.weight_decay to 0"),
        (lambda: WeightOnly(bits=1), "bits must be from 2 to 8 and a block at least 1, got 1 and 32"),
        (lambda: StaticInt8(rows=0), "calibration needs at least one row"),
        (lambda: KnowledgeDistillation(temperature=0), "temperature must be positive"),
        (lambda: SequentialCompression(()), "name one compression at least"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()


@pytest.mark.parametrize(
    ("compress", "model", "message"),
    [
        (StructuredPruning(), nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.LayerNorm(9)), "LayerNorm reads: use"),
        (StructuredPruning(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "nothing to prune"),
        (StructuredPruning(), nn.Linear(64, 10), "in an nn.Sequential, where it shows who reads them, got Linear"),
        (
            MagnitudePruning(),
            nn.Sequential(nn.Flatten()),
            "no weights of two dimensions or more",
        ),
        (StaticInt8(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).train(), "in training mode"),
    ],
)
def test_models_that_cannot_be_are_refused(compress, model, message, splits):
    if "training" not in message:
        model.eval()
    with pytest.raises(ValueError, match=message):
        compress(model, data=splits.train, generator=seed(0))
