"""Defenses of outputs: what is published, by closed forms and second implementations, and that attacks still run."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from aisec_lab.attacks import BPDA, PGD, Adaptive, Linf, Oracle, Square
from aisec_lab.attacks.inference.signals import (
    ConfidenceSignal,
    EntropySignal,
    LossSignal,
    ModifiedEntropySignal,
    ScaledLogitSignal,
)
from aisec_lab.data import Splits
from aisec_lab.defenses.outputs.coarse import (
    LabelOutput,
    LabelsOnly,
    RoundedOutput,
    RoundedProbabilities,
    TopK,
    TopKOutput,
)
from aisec_lab.defenses.outputs.mad import LEAD, MAD, MADModel, extreme_outputs, gradient_deviation
from aisec_lab.defenses.outputs.misinformation import AdaptiveMisinformation, ReverseCrossEntropy
from aisec_lab.defenses.outputs.perturbed import (
    OutputNoise,
    ReverseSigmoid,
    ReverseSigmoidModel,
    TemperatureOutput,
    TemperatureScaling,
)
from aisec_lab.models import MLP, Fit, logits_of
from aisec_lab.models.layers import FLOOR
from tests.odd_models import rows_of_logits

WRONG = AdaptiveMisinformation(MLP((32,)), Fit(epochs=6, batch_size=32, learning_rate=0.01), threshold=0.8)
KEEPING = [
    TopK(1),
    TopK(3),
    TopK(10),
    LabelsOnly(),
    TemperatureScaling(4),
    TemperatureScaling(0.5),
    OutputNoise(2),
    MAD(MLP((16,)), 1.5, argmax=True),
]
DEFENSES = [*KEEPING, RoundedProbabilities(2), ReverseSigmoid(), OutputNoise(1, keep=False), MAD(MLP((16,))), WRONG]


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def answers(rows: int = 200, classes: int = 6, spread: float = 3.0) -> Tensor:
    """Logits, float64, from even to nearly certain."""
    noise = torch.randn(rows, classes, generator=seed(rows), dtype=torch.float64)
    return noise * torch.linspace(0.01, spread, rows, dtype=torch.float64)[:, None]


@pytest.fixture(scope="module")
def defended(classifier: nn.Module, splits: Splits) -> Callable[[object], nn.Module]:
    """The classifier behind a defense, made once for each."""
    made: dict[object, nn.Module] = {}

    def make(defense: object) -> nn.Module:
        if defense not in made:
            made[defense] = defense(classifier, data=splits)  # type: ignore[operator]
        return made[defense]

    return make


@pytest.mark.parametrize("defense", DEFENSES, ids=repr)
def test_a_defended_model_publishes_log_probabilities(defense, defended, classifier, splits):
    """Finite, of sum 1; the batch, its order and a second question change nothing; the model's mode and winner."""
    model, x = defended(defense), splits.test.x
    logits = logits_of(model, x)
    assert logits.isfinite().all()
    assert (logits.exp().sum(1) - 1).abs().max() < 1e-5
    assert not any(module.training for module in model.modules())
    order = torch.randperm(len(x), generator=seed(1))
    again = logits_of(model, x[order], batch_size=37)
    near = (again.exp() - logits[order].exp()).abs().amax(1) < 1e-3  # float32 depends on the batch in its last bits
    assert near.double().mean() > 0.995
    assert model(x[:0]).shape == (0, 10)
    winners = logits_of(classifier, x).argmax(1)
    agreement = (logits.argmax(1) == winners).double().mean()
    assert agreement == 1 if defense in KEEPING else agreement > 0.5
    if defense != TopK(10):
        assert not torch.allclose(logits.exp(), logits_of(classifier, x).softmax(1), atol=1e-4)


@pytest.mark.parametrize("defense", DEFENSES, ids=repr)
def test_the_mode_is_that_of_the_model_and_nothing_of_it_changes(defense, splits):
    """A defended model in training mode is refused by attacks as any other."""
    model = MLP((8,))(splits.train.shape, 10, generator=seed(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert {module.training for module in defense(model, data=splits).modules()} == {True}
    assert {module.training for module in defense(model.eval(), data=splits).modules()} == {False}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@given(st.integers(1, 8), rows_of_logits(20, 7))
def test_the_k_largest_stay_and_the_others_share_evenly(k: int, row: list[float]):
    """Probability by probability; the winner stays, ties and all, and the answer sums to 1."""
    logits = torch.tensor([row], dtype=torch.float64)
    truth = logits.softmax(1)[0]
    found = TopKOutput(k)(logits).exp()[0]
    order = truth.argsort(descending=True, stable=True)
    expected = truth.clone()
    if k < len(row):
        expected[order[k:]] = truth[order[k:]].mean()
    assert np.allclose(found.sort().values, expected.sort().values, rtol=1e-9, atol=1e-300)
    assert found.sum().item() == pytest.approx(1)
    assert found[truth.argmax()] == found.max()


def test_the_first_of_classes_that_are_all_equal_stays_the_winner():
    """A mean of equal numbers, rounded, must not be above them."""
    for classes in range(3, 60):
        logits = torch.randn(50, 1, generator=seed(classes)).mul(7).expand(50, classes)
        assert (TopKOutput(1)(logits).argmax(1) == 0).all()
        assert torch.allclose(TopKOutput(2)(logits).exp(), torch.tensor(1 / classes))


@pytest.mark.parametrize("decimals", [0, 1, 2, 6])
def test_rounded_is_numpys_over_its_sum(decimals):
    """Where numpy leaves nothing, the answer is even."""
    logits = answers(classes=30)
    rounded = np.round(logits.softmax(1).numpy(), decimals)
    left = rounded.sum(1, keepdims=True)
    expected = np.where(left > 0, rounded / np.where(left > 0, left, 1), 1 / 30)
    assert np.allclose(RoundedOutput(decimals)(logits).exp().numpy(), expected, atol=2 * FLOOR)
    assert (left == 0).any() == (decimals <= 1)


def test_a_label_is_what_an_oracle_of_labels_publishes(classifier, splits):
    """The same vector, to within the floor."""
    x = splits.test.x
    told = logits_of(LabelsOnly()(classifier), x).softmax(1)
    assert (told - Oracle(classifier, labels_only=True)(x)).abs().max() < 1e-6


def test_a_temperature_softens_and_one_does_nothing():
    """Log-odds are divided by it."""
    logits = answers()
    assert torch.allclose(TemperatureOutput(1.0)(logits), logits.log_softmax(1))
    assert torch.allclose(TemperatureOutput(4.0)(logits).diff(dim=1), logits.diff(dim=1) / 4)


@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 0.2), (0.5, 1.0), (3.0, 5.0)])
def test_the_reverse_sigmoid_is_its_formula(beta, gamma):
    """y - beta (sigmoid(gamma logit(y)) - 1/2), negative parts cut, over its sum: written with numpy from y."""
    logits = answers()
    y = logits.softmax(1).numpy()
    bent = np.maximum(y - beta * (1 / (1 + np.exp(-gamma * np.log(y / (1 - y)))) - 0.5), 0)
    expected = bent / bent.sum(1, keepdims=True)
    assert np.allclose(ReverseSigmoidModel(beta, gamma)(logits).exp().numpy(), expected, atol=1e-9)
    assert (bent == 0).any() == (beta == 3)


@given(st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0.51, 1 - 1e-9), st.integers(0, 1000))
def test_the_reverse_sigmoid_keeps_a_winner_of_more_than_a_half(beta, gamma, top, number):
    """One of less than a half may lose, to a class that had next to nothing."""
    others = torch.rand(5, generator=seed(number), dtype=torch.float64) ** 8 + 1e-12
    truth = torch.cat([torch.tensor([top], dtype=torch.float64), (1 - top) * others / others.sum()])
    published = ReverseSigmoidModel(beta, gamma)(truth.log()[None])
    assert published[0, 0] > published[0, 1:].max() or beta * gamma > 0.999
    beaten = torch.tensor([[0.4, 0.3, 0.3 - 1e-9, 1e-9]], dtype=torch.float64).log()
    assert ReverseSigmoidModel(1.0, 0.2)(beaten).argmax(1) == 3


def test_noise_has_its_scale_and_belongs_to_the_query(classifier, splits):
    """Normal on the log-odds, the same when asked again and in another batch, another for another input or seed."""
    x = splits.test.x
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 400))
    nn.init.zeros_(flat[1].weight)
    nn.init.zeros_(flat[1].bias)
    noisy = OutputNoise(0.7, keep=False)(flat.eval())(x).detach()
    centred = noisy - noisy.mean(1, keepdim=True)
    assert centred.std().item() == pytest.approx(0.7, rel=0.02)
    assert abs(torch.corrcoef(centred).triu(1)).max() < 6 / math.sqrt(400)
    whole, part = OutputNoise()(classifier)(x), OutputNoise()(classifier)(x[[7, 3]])
    assert torch.allclose(whole[[7, 3]], part, atol=1e-4)
    nearby = (x + 1e-6).clamp(max=1)
    assert (OutputNoise()(classifier)(nearby) - whole).abs().mean() > 0.1
    assert (OutputNoise(seed=1)(classifier)(x) - whole).abs().mean() > 0.1


@pytest.mark.parametrize("keep", [True, False])
def test_poisoned_answers_deviate_the_most_within_the_budget(keep):
    """Row by row against all corners, one at a time: none at the same distance turns the gradient further."""
    logits, copy = answers(60, 5), answers(61, 5, 1.0)[:60]
    eps = 0.6
    change = MADModel(nn.Identity(), eps, extreme_outputs(5, keep), keep)
    published = change(logits, copy).exp()
    truth, guess = logits.softmax(1), copy.softmax(1)
    assert (published - truth).abs().sum(1).max() <= eps + 1e-9
    assert (published.sum(1) - 1).abs().max() < 1e-6
    if keep:
        assert torch.equal(published.argmax(1), truth.argmax(1))
    for row in range(60):
        best = 0.0
        for subset in range(1, 32):
            corner = torch.tensor([subset >> k & 1 for k in range(5)], dtype=torch.float64)
            if corner.sum() != 1 if not keep else corner[truth[row].argmax()] != 1:
                continue
            corner[truth[row].argmax()] *= 1 + LEAD  # of those that tie, the winner is ahead
            corner /= corner.sum()
            step = min(1.0, eps / (corner - truth[row]).abs().sum().item())
            best = max(best, angle(truth[row] + step * (corner - truth[row]), truth[row], guess[row]))
        assert angle(published[row], truth[row], guess[row]) == pytest.approx(best, abs=1e-6)


def angle(answer: Tensor, truth: Tensor, guess: Tensor) -> float:
    """By how much the directions of two differences differ, as the paper writes it."""
    first, second = answer - guess, truth - guess
    return (first / first.norm() - second / second.norm()).square().sum().item()


def test_the_deviation_is_that_of_gradients_by_autograd(splits):
    """Of a network's soft cross-entropy in its last layer's weights, for any features below it."""
    model = MLP((7,))(splits.train.shape, 10, generator=seed(3)).double()
    weights = [layer for layer in model if isinstance(layer, nn.Linear)][-1].weight
    x, logits = splits.test.x[:20].double(), answers(40, 10)
    truth, answer = logits[20:].softmax(1), logits[:20].flip(1).softmax(1)
    found = gradient_deviation(answer, truth, model(x).softmax(1))
    for row in range(20):
        turned, true = (
            torch.autograd.grad(-(target[row] * model(x[row : row + 1]).log_softmax(1)[0]).sum(), weights)[0].flatten()
            for target in (answer, truth)
        )
        expected = (turned / turned.norm() - true / true.norm()).square().sum()
        assert found[row].item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_wrong_model_is_wrong_and_answers_only_where_the_model_is_unsure(defended, classifier, splits):
    """Its loss is -log(1 - p_y); a sure answer stays, an unsure one is the wrong model's, never true."""
    logits, y = answers(50, 4), torch.arange(50) % 4
    loss = ReverseCrossEntropy()(nn.Identity(), logits, y, generator=seed(0))
    assert torch.allclose(loss, -(1 - logits.softmax(1)[torch.arange(50), y]).log())
    x, y = splits.test.x, splits.test.y
    model = defended(WRONG)
    truth, told = logits_of(classifier, x).softmax(1), logits_of(model, x).softmax(1)
    wrong = logits_of(model.change.wrong, x).softmax(1)
    sure, unsure = truth.amax(1) > 0.82, truth.amax(1) < 0.78
    assert unsure.sum() > 5
    assert (told[sure] - truth[sure]).abs().max() < 1e-5
    assert (told[unsure] - wrong[unsure]).abs().max() < 1e-5
    assert (wrong.argmax(1) == y).double().mean() < 0.03


@pytest.mark.parametrize("defense", DEFENSES, ids=repr)
def test_attacks_run_through_every_defense_and_a_wrapper_is_no_robustness(defense, defended, splits):
    """PGD, through BPDA where the gradient is marked useless, and Square both break what they break undefended."""
    model, x, y = defended(defense), splits.test.x[:40], splits.test.y[:40]
    hidden = any(getattr(module, "differentiable", True) is False for module in model.modules())
    pgd = Adaptive(Linf(0.3), lambda ball: PGD(ball, steps=10), BPDA()) if hidden else PGD(Linf(0.3), steps=10)
    for attack, least in ((pgd, 0.8), (Square(Linf(0.3), queries=60), 0.3)):
        found = attack(model, x, y, generator=seed(0))
        assert found.isfinite().all()
        assert (found - x).abs().max() <= 0.3 + 1e-6
        assert (logits_of(model, found).argmax(1) != y).double().mean() > least


def test_a_gradient_that_is_zero_is_zero_and_no_error(classifier, splits):
    """Labels and rounded answers let PGD start, and tell it nothing."""
    x = splits.test.x[:5].clone().requires_grad_()
    for change in (LabelOutput(), RoundedOutput(1)):
        (gradient,) = torch.autograd.grad(F.cross_entropy(change(classifier(x)), splits.test.y[:5]), x)
        assert (gradient == 0).all()


@pytest.mark.parametrize("defense", DEFENSES, ids=repr)
def test_membership_signals_read_every_published_answer(defense, defended, splits):
    """Finite for each record: the floor is under every logarithm."""
    logits = logits_of(defended(defense), splits.test.x)
    for signal in (LossSignal(), ConfidenceSignal(), EntropySignal(), ModifiedEntropySignal(), ScaledLogitSignal()):
        assert signal(logits, splits.test.y).isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(0), "k must be at least 1, got 0"),
        (lambda: RoundedProbabilities(7), "decimals must be from 0 to 6"),
        (lambda: TemperatureScaling(0), "temperature must be positive, got 0"),
        (lambda: ReverseSigmoid(gamma=0), "beta and gamma must be positive, got 1.0 and 0"),
        (lambda: OutputNoise(0), "scale must be positive, got 0: for no noise use Undefended"),
        (lambda: MAD(MLP(), 2.1), "above 0 and at most 2, got 2.1"),
        (lambda: MAD(MLP())(nn.Identity()), "give it data=splits"),
        (lambda: extreme_outputs(13, keep=True), "for 13 classes; at most 12 classes: set argmax=False"),
        (lambda: AdaptiveMisinformation(MLP(), Fit(), threshold=1), r"threshold must lie in \(0, 1\)"),
        (lambda: WRONG(nn.Identity()), "give it data=splits"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    """With what was given and what is accepted."""
    with pytest.raises(ValueError, match=message):
        make()
