"""DP-SGD: what is sampled, cut, noised and promised, and that the model learns and comes back whole."""

import copy
import math
import os
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from scipy.stats import binom, chisquare, kstest, norm
from sklearn.datasets import load_digits
from torch import nn
from torch.optim import SGD

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import CNN, Fit, logits_of
from aisec_lab.models.training.fit import Losses
from aisec_lab.privacy.accounting import epsilon
from aisec_lab.privacy.clipping import AdaptiveClipping, FlatClipping, GhostClipping, PerLayerClipping, RowByRowClipping
from aisec_lab.privacy.dp_sgd import DPSGD
from aisec_lab.privacy.sampling import normals, poisson_batches, uniforms

CLIPPINGS = [FlatClipping, PerLayerClipping, AdaptiveClipping, GhostClipping, RowByRowClipping]


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def rows():
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return Dataset(x, torch.tensor(data.target), tuple("0123456789"), "digits")


def network():
    return CNN(width=8, hidden=32)((1, 8, 8), 10, generator=seed(0))


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def change(x, y, recipe, *, sigma=0.0, expected=10, number=0):
    """What a step of SGD at rate 1 makes of the weights, as one vector."""
    model = network().train()
    before = vector(model)
    with recipe.private_step(model, sigma, expected, seed(number)) as step:
        losses = step(model, SGD(model.parameters(), lr=1.0), Losses(Standard(), model, x, y, seed(0)))
    assert len(losses) == len(x)
    return vector(model) - before


def quiet(clipping, physical_batch=None):
    return DPSGD(noise_multiplier=0, clipping=clipping, physical_batch=physical_batch)


@pytest.mark.parametrize("bound", [0.5, 1e6])
@pytest.mark.parametrize("clipping", [FlatClipping, GhostClipping, RowByRowClipping])
@pytest.mark.parametrize("physical_batch", [None, 1, 5, 12])
def test_a_step_is_the_sum_of_the_cut_gradients_over_the_expected_batch(clipping, bound, physical_batch, rows):
    """Row by row through a slow second implementation; some are cut, and with a huge bound none is."""
    x, y, model = rows.x[:12], rows.y[:12], network()
    own = []
    for one, truth in zip(x, y, strict=True):
        loss = F.cross_entropy(model(one[None]), truth[None])
        own.append(torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.parameters()))]))
    own = torch.stack(own)
    lengths = own.norm(dim=1)
    assert (lengths > bound).any() == (bound < 1)
    expected = (own * (bound / lengths).clamp(max=1)[:, None]).sum(0) / 10
    moved = change(x, y, quiet(clipping(bound), physical_batch))
    torch.testing.assert_close(-moved, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_one_row_moves_the_sum_by_no_more_than_the_bound(clipping, rows):
    """Added to a batch or removed from it, an outlier too: the sensitivity that the noise is scaled to."""
    x, y = rows.x[:8], rows.y[:8]
    for odd in (x[:1], torch.ones_like(x[:1]), torch.zeros_like(x[:1])):
        for label in (0, 7):
            more, truths = torch.cat([x, odd]), torch.cat([y, torch.tensor([label])])
            moved = change(more, truths, quiet(clipping(0.1))) - change(x, y, quiet(clipping(0.1)))
            assert 0.01 < 10 * moved.norm() <= 0.1 * 1.001


def test_opacus_makes_the_same_step(rows):
    """Its own optimizer, without noise."""
    x, y, model = rows.x[:12], rows.y[:12], network().train()
    before = vector(model)
    sampling = GradSampleModule(model)
    optimizer = DPOptimizer(
        SGD(model.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=0.5, expected_batch_size=10
    )
    F.cross_entropy(sampling(x), y).backward()
    optimizer.step()
    torch.testing.assert_close(change(x, y, quiet(GhostClipping(0.5))), vector(model) - before, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "clipping", [FlatClipping(0.5), PerLayerClipping(0.5), GhostClipping(0.5), AdaptiveClipping(0.5, count_noise=0.5)]
)
@pytest.mark.parametrize("count", [0, 7])
def test_the_noise_has_its_size(clipping, count, rows):
    """A normal deviation of noise * norm / expected in every weight, in an empty batch too."""
    recipe, sigma = quiet(clipping), 3.0
    both = [change(rows.x[:count], rows.y[:count], recipe, sigma=by, number=6) for by in (0.0, sigma)]
    scaled = (both[1] - both[0]) * 10 / (clipping.gradient_noise_multiplier(sigma, 10) * 0.5)
    assert kstest(scaled.numpy(), "norm").pvalue > 0.001
    assert not torch.equal(both[1], change(rows.x[:count], rows.y[:count], recipe, sigma=sigma, number=7))


def test_an_adaptive_bound_is_carried_from_step_to_step(rows):
    """While all rows are longer than C it grows by exp(rate * quantile), and the steps with it."""
    x, y, model = rows.x[:10], rows.y[:10], network().train()
    optimizer, lengths = SGD(model.parameters(), lr=1.0), []
    with quiet(AdaptiveClipping(1e-4, rate=1.0, count_noise=1e-4)).private_step(model, 0.0, 10, seed(0)) as step:
        for _ in range(4):
            before = vector(model)
            step(model, optimizer, Losses(Standard(), model, x, y, seed(0)))
            lengths.append((vector(model) - before).norm().item())
    assert [b / a for a, b in pairwise(lengths)] == pytest.approx([math.exp(0.5)] * 3, rel=0.01)


def test_an_empty_batch_without_noise_changes_nothing(rows):
    assert not change(rows.x[:0], rows.y[:0], quiet(GhostClipping())).any()


def test_batches_are_poisson_samples():
    """Sizes are binomial, where shuffling has one size; each row is in by coins of its own, never twice."""
    batches = [batch for number in range(60) for batch in poisson_batches(200, 30, seed(number))]
    assert len(batches) == 60 * 7
    counts = torch.bincount(torch.tensor([len(batch) for batch in batches]), minlength=201).double()
    edges = [0, 25, 28, 30, 32, 35, 201]
    seen = [counts[low:high].sum().item() for low, high in pairwise(edges)]
    due = [binom.cdf(high - 1, 200, 0.15) - binom.cdf(low - 1, 200, 0.15) for low, high in pairwise(edges)]
    assert chisquare(seen, [420 * share for share in due]).pvalue > 0.001
    member = torch.zeros(420, 200)
    for place, batch in zip(member, batches, strict=True):
        assert len(batch) == len(batch.unique())
        place[batch] = 1
    assert abs(torch.corrcoef(member.T).fill_diagonal_(0)).max() < 5.5 / 420**0.5  # of 19,900 pairs
    assert abs(torch.corrcoef(member).fill_diagonal_(0)).max() < 6 / 200**0.5  # of 87,990 pairs


def test_batches_may_be_empty_or_whole():
    assert any(len(batch) == 0 for batch in poisson_batches(20, 1, seed(0)))
    (whole,) = poisson_batches(20, 20, seed(0))
    assert whole.tolist() == list(range(20))


@pytest.mark.parametrize(("count", "batch_size"), [(1797, 64), (128, 64), (129, 64), (64, 64), (10, 1)])
def test_what_is_stated_is_what_is_sampled(count, batch_size):
    """q from the sampler's coins, the steps from the loop's count of them."""
    fit, seen = Fit(epochs=3, batch_size=batch_size, learning_rate=0.1, momentum=0.0), []
    x = torch.rand(count, 4, generator=seed(0))
    mechanism = DPSGD(noise_multiplier=1.5, delta=1e-5).mechanism(fit, count)

    def step(model, optimizer, losses):
        seen.append(len(losses))
        optimizer.step()
        return torch.zeros(len(losses))

    model = nn.Linear(4, 2)
    fit(
        model,
        Dataset(x, torch.arange(count) % 2, ("a", "b"), "made"),
        Standard(),
        generator=seed(1),
        step=step,
        batches=poisson_batches,
    )
    assert (mechanism.steps, mechanism.sigma) == (len(seen), 1.5)
    deviation = (mechanism.q * (1 - mechanism.q) / (count * len(seen))) ** 0.5
    assert sum(seen) / (count * len(seen)) == pytest.approx(mechanism.q, abs=4 * deviation + 1e-12)


def test_a_target_is_kept_to_and_used_up():
    """By the least noise: the accountant's epsilon lies just below."""
    mechanism = DPSGD(epsilon=3.0, delta=1e-4).mechanism(Fit(epochs=1), 1797)
    assert (mechanism.q, mechanism.steps) == (64 / 1797, 29)
    assert 0.98 * 3 < epsilon([mechanism], 1e-4) <= 3


def test_infinity_is_clipping_alone():
    assert DPSGD(epsilon=math.inf).mechanism(Fit(), 1797).sigma == 0


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_it_trains_in_place_and_leaves_no_trace(clipping, rows):
    """Better than chance by far, the same twice, a plain model afterwards that can be copied."""
    recipe, ends = DPSGD(noise_multiplier=0.5, clipping=clipping()), []
    for epochs, count in ((1, 100), (1, 100), (4, 900)):
        model = network()
        Fit(epochs=epochs, learning_rate=0.02)(model, rows.subset(torch.arange(count)), recipe, generator=seed(1))
        ends.append(vector(model))
        assert not model.training
        assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
        assert not any(set(vars(weight)) - {"_backward_hooks"} for weight in model.parameters())
        copy.deepcopy(model)
    assert torch.equal(ends[0], ends[1])
    assert (logits_of(model, rows.x).argmax(1) == rows.y).double().mean() > 0.6


def test_sgd_with_momentum_is_fits_own(rows):
    """Private training is `Fit` with another step, whatever the optimizer."""
    model = network()
    fit = Fit(epochs=3, batch_size=128, learning_rate=0.5, momentum=0.9, weight_decay=0)
    fit(model, rows, DPSGD(noise_multiplier=0.5), generator=seed(1))
    assert (logits_of(model, rows.x).argmax(1) == rows.y).double().mean() > 0.6


def test_frozen_weights_stay(rows):
    model = network()
    model[1].weight.requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    fit = Fit(epochs=1, learning_rate=0.1, momentum=0.0, weight_decay=0.1)
    fit(model, rows.subset(torch.arange(100)), DPSGD(noise_multiplier=1), generator=seed(1))
    assert [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])] == ["1.weight"]


@pytest.mark.parametrize("clipping", [GhostClipping(), AdaptiveClipping()])
def test_an_interrupted_training_goes_on_to_the_same_bits(clipping, rows, tmp_path):
    """The adaptive bound, too, is where it was; with other settings nothing goes on."""
    recipe, few, straight = DPSGD(noise_multiplier=1, clipping=clipping), rows.subset(torch.arange(200)), network()
    fit = Fit(epochs=3, learning_rate=0.01, momentum=0.9)
    fit(straight, few, recipe, generator=seed(1))

    model, file, count = network(), tmp_path / "run", [0]

    def stop(module, args):
        count[0] += module is model  # the trial asks copies
        if count[0] == stop.at:
            raise KeyboardInterrupt

    stop.at = 11  # passes: 4 batches and a look at the rows an epoch
    with model.register_forward_pre_hook(stop), pytest.raises(KeyboardInterrupt):
        fit(model, few, recipe, generator=seed(1), resume=file)
    assert file.exists()
    resumed = network()
    fit(resumed, few, recipe, generator=seed(2), resume=file)
    assert torch.equal(vector(resumed), vector(straight))
    with pytest.raises(ValueError, match="is of another run"):
        other = DPSGD(noise_multiplier=0.5, clipping=clipping)
        fit(network(), few, other, generator=seed(1), resume=file)
    with pytest.raises(ValueError, match="is of another run"):  # as many rows, of the same name
        fit(network(), rows.subset(torch.arange(200, 400)), recipe, generator=seed(1), resume=file)


def test_a_release_does_not_follow_the_seed(rows):
    """Two with one seed differ, where two studies are the same."""
    few, ends = rows.subset(torch.arange(100)), []
    for release in (True, True, False, False):
        model = network()
        Fit(epochs=1)(model, few, DPSGD(noise_multiplier=1, release=release), generator=seed(1))
        ends.append(vector(model))
    assert not torch.equal(ends[0], ends[1])
    assert torch.equal(ends[2], ends[3])


def test_the_operating_systems_noise_is_normal():
    """Fails by chance once in a million runs, since nothing seeds it."""
    assert kstest(uniforms(20_000, None).numpy(), "uniform").pvalue > 1e-6
    drawn = normals((100, 200), None)
    assert drawn.dtype == torch.float32
    assert kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-6
    sizes = [len(batch) for _ in range(20) for batch in poisson_batches(1000, 100, None)]
    assert abs(sum(sizes) / 200 - 100) < 6 * (90 / 200) ** 0.5


@pytest.mark.parametrize(("byte", "share"), [(0, 2.0**-53), (255, 1 - 2.0**-53), (128, None)])
def test_the_operating_systems_bits_become_the_normals_quantiles(byte, share, monkeypatch):
    """The extreme ones too are finite, 8.2 deviations out."""
    monkeypatch.setattr(os, "urandom", lambda count: bytes([byte]) * count)
    (drawn,) = uniforms(1, None).tolist()
    words = int.from_bytes(bytes([byte]) * 8, "little") % 2**52
    assert drawn == (words + 0.5) / 2**52
    assert share is None or drawn == share
    assert normals((2, 1), None).tolist() == [[pytest.approx(norm.ppf(drawn))]] * 2


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.layer = nn.Flatten(), nn.Linear(64, 64)

    def forward(self, x):
        return self.layer(self.layer(self.flat(x)))


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.layer = nn.Flatten(), nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(self.flat(x - x.mean(0)))


def normalised(layer):
    return nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.Flatten(), nn.Linear(144, 10))


MODELS = {
    "BatchNorm2d": (
        lambda: normalised(nn.BatchNorm2d(4)),
        FlatClipping(),
        r"1 \(BatchNorm2d\) mixes the rows.*use GroupNorm",
    ),
    "InstanceNorm2d": (
        lambda: normalised(nn.InstanceNorm2d(4, track_running_stats=True)),
        FlatClipping(),
        "use GroupNorm",
    ),
    "centred": (Centred, FlatClipping(), "Centred mixes the rows of a batch"),
    "frozen": (lambda: network().requires_grad_(False), GhostClipping(), "all weights are frozen"),
    "twice": (Twice, GhostClipping(), "layer.weight is used twice.*use clipping FlatClipping"),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_be_private_are_refused_at_the_door(name, rows):
    """Before anything is drawn or changed, and no hook is left."""
    make, clipping, message = MODELS[name]
    model, generator = make(), seed(1)
    before, state = copy.deepcopy(model.state_dict()), generator.get_state()
    with pytest.raises(ValueError, match=message):
        Fit(epochs=1)(model, rows, DPSGD(epsilon=1, clipping=clipping), generator=generator)
    assert torch.equal(generator.get_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_flat_takes_a_layer_that_runs_twice(rows):
    """What `GhostClipping` refuses: the rows' gradients of both runs add up, and the weights move."""
    model, few = Twice(), rows.subset(torch.arange(100))
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    Fit(epochs=1)(model, few, DPSGD(noise_multiplier=1, clipping=FlatClipping()), generator=seed(1))
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert after.isfinite().all()
    assert not torch.equal(before, after)


start = partial(Fit(epochs=1), generator=seed(1))
WRONG = [
    (lambda rows: DPSGD(), "give one of epsilon and noise_multiplier, got None and None"),
    (lambda rows: DPSGD(epsilon=1, noise_multiplier=1), "give one of epsilon and noise_multiplier, got 1 and 1"),
    (lambda rows: DPSGD(epsilon=0), "epsilon must be positive, got 0"),
    (lambda rows: DPSGD(epsilon=math.nan), "epsilon must be positive, got nan"),
    (lambda rows: DPSGD(noise_multiplier=-1), "noise_multiplier must be finite and not negative, got -1"),
    (lambda rows: DPSGD(epsilon=1, physical_batch=0), "physical_batch must be positive, got 0"),
    (
        lambda rows: start(network(), rows, DPSGD(noise_multiplier=1, delta=1 / 1797)),
        "delta must lie above 0 and below",
    ),
    (lambda rows: start(network(), rows, DPSGD(noise_multiplier=1, delta=0.0)), "delta must lie above 0 and below"),
    (
        lambda rows: start(network(), rows.subset(torch.arange(63)), DPSGD(noise_multiplier=1)),
        "at least batch_size = 64 rows, got 63",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_makes_no_sense_is_refused(wrong, message, rows):
    with pytest.raises(ValueError, match=message):
        wrong(rows)
