"""Watermarks: what a marked model proves, what it costs, and that nobody else is accused."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare, kstest
from torch import nn

from aisec_lab.attacks import Oracle
from aisec_lab.attacks.extraction.result import published_probabilities
from aisec_lab.attacks.extraction.surrogate_training import train_surrogate
from aisec_lab.attacks.inference.inclusion import inclusion_mask
from aisec_lab.data import Dataset
from aisec_lab.defenses.compression.quantisation import StaticInt8
from aisec_lab.defenses.ownership.dawn import DAWN
from aisec_lab.defenses.ownership.deepsigns import DeepSigns, class_means
from aisec_lab.defenses.ownership.entangled import EntangledWatermark
from aisec_lab.defenses.ownership.key import SIZE, Key
from aisec_lab.defenses.ownership.trigger_set import TriggerSet
from aisec_lab.defenses.ownership.uchida import Uchida, mean_filter
from aisec_lab.defenses.ownership.watermark import WatermarkedModel, get_layer
from aisec_lab.models import CNN, MLP, Fit, fit_stack, logits_of
from aisec_lab.models.training.fit_stack import ModelStack
from benchmarks.ownership import activation_null, keys_of, served_null, trigger_null, weight_null

SCRATCH, TUNED = Fit(epochs=8, learning_rate=0.01), Fit(epochs=5, learning_rate=0.003)
TRAINED = [TriggerSet(fit=SCRATCH), Uchida(fit=TUNED), DeepSigns(fit=TUNED)]
NETWORK = MLP(hidden=(64, 32))


def seed(number):
    return torch.Generator().manual_seed(number)


def key_of(number):
    return Key.drawn(seed(1000 + number))


def right(model, rows):
    return (logits_of(model, rows.x).argmax(1) == rows.y).double().mean().item()


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def unseen(splits):
    """797 rows that no model has seen: a point of accuracy is eight of them."""
    clean, test = splits.splits["clean"], splits.test
    return replace(test, x=torch.cat([clean.x, test.x]), y=torch.cat([clean.y, test.y]))


@pytest.fixture(scope="module")
def innocent(splits):
    """Four small networks that nobody marked, each trained on its own half of the rows."""
    generators = [seed(k) for k in range(4)]
    stack = ModelStack(NETWORK, (1, 8, 8), 10, generators)
    coins = inclusion_mask(4, len(splits.train), generator=seed(0))
    fit_stack(stack, splits.train, coins, fit=Fit(epochs=10), generators=generators)
    return [stack.unstacked(k) for k in range(4)]


class Constant(nn.Module):
    """Answers the same class to everything: as independent of a key as can be."""

    def __init__(self, label, classes=10):
        super().__init__()
        self.scores = F.one_hot(torch.tensor(label), classes).float()

    def forward(self, x):
        return self.scores.expand(len(x), -1)


class Known(nn.Module):
    """Gives known labels to known rows, and class 0 to the rest."""

    def __init__(self, x, y, classes=10):
        super().__init__()
        self.answers = {row.numpy().tobytes(): int(label) for row, label in zip(x, y, strict=True)}
        self.classes = classes

    def forward(self, x):
        labels = [self.answers.get(row.contiguous().numpy().tobytes(), 0) for row in x]
        return F.one_hot(torch.tensor(labels), self.classes).float()


def test_a_key_is_bound_by_its_commitment_and_shows_no_secret():
    """Fresh keys differ; a drawn one repeats and says that it is simulated; print shows none of it."""
    key, fresh = key_of(0), Key.fresh()
    assert key == key_of(0)
    assert len({key.commitment, key_of(1).commitment, fresh.commitment, Key.fresh().commitment}) == 4
    assert (key.simulated, fresh.simulated) == (True, False)
    assert key.commitment == hashlib.sha256(b"commitment" + key.secret).hexdigest()
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
    with pytest.raises(ValueError, match=r"has 32 bytes, got 31: draw it with Key.fresh\(\)"):
        Key(bytes(SIZE - 1))
    for secret in ("a" * SIZE, bytearray(SIZE), [0] * SIZE, None):
        with pytest.raises(ValueError, match=rf"32 bytes, got a {type(secret).__name__}: draw it with Key.fresh\(\)"):
            Key(secret)


@pytest.mark.parametrize("mark", [*TRAINED, DAWN(), EntangledWatermark()], ids=lambda mark: type(mark).__name__)
def test_a_mark_takes_a_key_and_not_its_secret(mark, splits):
    """At its door and in a claim, before anything is trained."""
    model = CNN()((1, 8, 8), 10, generator=seed(0))
    with pytest.raises(ValueError, match=r"follows from a Key, got a bytes: take Key.fresh\(\)"):
        mark.embed(model, splits.train, bytes(SIZE), generator=seed(0))
    with pytest.raises(ValueError, match="follows from a Key, got a str"):
        WatermarkedModel(model, "a" * SIZE)


@settings(deadline=None, max_examples=20)
@given(st.binary(min_size=SIZE, max_size=SIZE), st.text(max_size=20), st.integers(0, 300), st.integers(2, 1000))
def test_streams_follow_from_secret_and_purpose(secret, purpose, size, high):
    """Shake-256, longer streams beginning with the shorter ones; the numbers are read from its 64-bit words."""
    key = Key(secret)
    assert key.stream(purpose, size) == hashlib.shake_256(secret + purpose.encode()).digest(size)
    assert key.stream(purpose, size + 9)[:size] == key.stream(purpose, size)
    words = [int.from_bytes(key.stream(purpose, 48)[8 * i : 8 * i + 8], "little") for i in range(6)]
    assert key.integers(purpose, high, (2, 3)).flatten().tolist() == [word % high for word in words]
    assert key.bits(purpose, (6,)).tolist() == [word % 2 == 1 for word in words]
    assert key.uniform(purpose, (6,)).tolist() == [(word >> 40) / 2**24 for word in words]
    assert key.uniform(purpose, (6,), torch.float64).tolist() == [(word >> 11) / 2**53 for word in words]
    assert key.normal(purpose, ()).shape == ()


def test_what_a_key_draws_has_the_law_that_it_says():
    """Kolmogorov and Smirnov find the uniform and the normal law, chi-squared the integers; two purposes have nothing
    in common."""
    key, n = key_of(0), 20_000
    assert kstest(key.uniform("u", (n,), torch.float64).numpy(), "uniform").pvalue > 0.001
    assert kstest(key.normal("z", (n,), torch.float64).numpy(), "norm").pvalue > 0.001
    assert chisquare(key.integers("i", 7, (n,)).bincount(minlength=7).numpy()).pvalue > 0.001
    pair = torch.stack([key.normal("z", (n,)), key.normal("y", (n,))])
    assert abs(torch.corrcoef(pair)[0, 1]) < 4 / math.sqrt(n)


@pytest.mark.parametrize("mark", TRAINED, ids=lambda mark: type(mark).__name__)
def test_a_mark_is_found_by_its_key_alone_and_costs_a_point_at_most(mark, classifier, splits, unseen):
    """p below 1e-6 in the marked model; under another key, and in the unmarked model that it was made from, nothing."""
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    scratch = mark.fit is SCRATCH
    model = CNN(width=8, hidden=32)((1, 8, 8), 10, generator=seed(0)) if scratch else classifier
    marked = mark.embed(model, splits.train, key_of(0), generator=seed(0))
    assert mark.verify(marked.model, marked) < 1e-6
    assert mark.verify(StaticInt8()(marked.model, data=splits.train, generator=seed(0)), marked) < 1e-6
    assert right(marked.model, unseen) >= right(classifier, unseen) - 0.01
    assert mark.verify(classifier, marked) > 0.01
    assert min(mark.verify(marked.model, replace(marked, key=key_of(k))) for k in range(1, 6)) > 0.01
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert not marked.model.training


def test_embedding_repeats_to_the_bit(splits):
    """The same key and seed give the same weights; another key gives others."""
    train, mark = splits.train.subset(torch.arange(200)), TriggerSet(n=20, fit=Fit(epochs=1))
    model = NETWORK((1, 8, 8), 10, generator=seed(0))
    first, again, other = (mark.embed(model, train, key_of(k), generator=seed(1)).model for k in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("matches", [0, 9, 25, 60, 100])
def test_the_trigger_set_counts_labels_that_only_a_copy_knows(matches, splits):
    """A suspect that knows so many labels and misses the rest has the p-value of scipy's binomial law."""
    mark, marked = TriggerSet(n=100), WatermarkedModel(Constant(0), key_of(0), splits.train)
    triggers = mark.triggers(marked.key, splits.train)
    labels = torch.where(torch.arange(100) < matches, triggers.y, (triggers.y + 1) % 10)
    expected = binom.sf(matches - 1, 100, 0.1)
    assert mark.verify(Known(triggers.x, labels), marked) == pytest.approx(expected, rel=1e-9)
    assert triggers.x.shape == (100, 1, 8, 8)
    assert triggers.y.unique().numel() == 10


def test_weights_are_read_as_the_paper_has_it(splits):
    """The mean over filters of a convolution written out, its projections' signs counted one by one."""
    model, mark = CNN()((1, 8, 8), 10, generator=seed(0)).eval(), Uchida(bits=40)
    layer = get_layer(model, 2)
    outputs, inputs, height, width = layer.weight.shape
    w = [
        sum(layer.weight[o, i, r, c].item() for o in range(outputs)) / outputs
        for i in range(inputs)
        for r in range(height)
        for c in range(width)
    ]
    assert mean_filter(layer).tolist() == pytest.approx(w, abs=1e-7)
    key = key_of(3)
    rows, bits = key.normal("weight projections", (40, len(w))).double().numpy(), key.bits("weight bits", (40,))
    hits = sum(bool(row @ np.array(w) > 0) == bool(bit) for row, bit in zip(rows, bits, strict=True))
    assert mark.verify(model, WatermarkedModel(model, key)) == pytest.approx(binom.sf(hits - 1, 40, 0.5))


def test_activations_are_the_means_of_each_class(innocent, splits):
    """Those of a network written out layer by layer; a class without a row has a mean of zero."""
    rows = splits.test.subset((splits.test.y != 4).nonzero().squeeze(1))
    model = innocent[0]
    hidden = torch.relu(model[2](2 * rows.x.flatten(1) - 1))
    expected = torch.stack([hidden[rows.y == k].mean(0) if k != 4 else torch.zeros(64) for k in range(10)])
    assert torch.allclose(class_means(model, get_layer(model, 1), rows), expected, atol=1e-5)


@pytest.mark.parametrize("mark", [Uchida(bits=20), DeepSigns()], ids=lambda mark: type(mark).__name__)
def test_a_suspect_of_another_shape_proves_nothing(mark, splits):
    """Another width, or no such layer at all: p is 1, and no error."""
    model = CNN()((1, 8, 8), 10, generator=seed(0)).eval()
    marked = WatermarkedModel(model, key_of(0), splits.train.sample(100, 0))
    assert mark.verify(CNN(width=8)((1, 8, 8), 10, generator=seed(0)).eval(), marked) == 1
    assert mark.verify(Constant(0), marked) == 1
    assert 0 < mark.verify(model, marked) <= 1


@pytest.fixture(scope="module")
def served(innocent, splits):
    """A network served under a mark at 5 %, and the claim against a client that asked the training rows."""
    mark = DAWN(rate=0.05)
    marked = mark.embed(innocent[0], splits.train, key_of(0), generator=seed(0))
    return mark, mark.with_queries(marked, splits.train.x)


def test_a_served_model_lies_rarely_repeatably_and_confidently(served, innocent, splits):
    """A wrong class has the largest score, the right one takes that class's place; the rate is the one that was set."""
    _, marked = served
    x, own = splits.train.x, logits_of(innocent[0], splits.train.x)
    answers = logits_of(marked.model, x)
    assert torch.equal(answers.sort(1).values, own.sort(1).values)
    lied = answers.argmax(1) != own.argmax(1)
    assert binom.ppf(0.001, 1000, 0.05) <= lied.sum() <= binom.ppf(0.999, 1000, 0.05)
    assert torch.equal(answers[~lied], own[~lied])
    assert (answers[lied] != own[lied]).sum(1).eq(2).all()
    order = torch.randperm(1000, generator=seed(1))
    assert torch.equal(logits_of(marked.model, x[order], batch_size=7).argmax(1), answers.argmax(1)[order])


def test_a_served_lie_outlives_a_tiny_change_of_the_row(served, splits):
    """Of the rows that were lied to, most are so again, with the same class, when each pixel moves by a hundredth."""
    mark, marked = served
    where, moves = mark.triggers(marked.model, marked.key, marked.rows)
    x = splits.train.x[where]
    moved = (x + 0.02 * (torch.rand(x.shape, generator=seed(2)) - 0.5)).clamp(0, 1)
    chosen, again = marked.model.assign(marked.model.codes(moved), 10)
    assert (chosen & (again == moves)).double().mean() > 0.75
    x = x.clone().requires_grad_()
    assert torch.autograd.grad(marked.model(x).max(1).values.sum(), x)[0].abs().sum() > 0


def test_who_trains_on_served_answers_carries_the_mark(served, innocent, splits):
    """A thief that learned the labels alone is found; the model behind, innocent ones and another key are not."""
    mark, marked = served
    oracle, asked = Oracle(marked.model, labels_only=True), splits.train.x[:500]
    claim = mark.with_queries(marked, asked)
    thief = train_surrogate(
        NETWORK, asked, published_probabilities(oracle, asked), fit=Fit(80), generator=seed(5), name="queries"
    )
    assert mark.verify(thief, claim) < 1e-6
    assert mark.verify(oracle, claim) < 1e-20
    assert min(mark.verify(suspect, claim) for suspect in innocent) > 0.01
    assert mark.verify(thief, replace(claim, key=key_of(1))) > 0.01


def test_equal_queries_count_once(served, innocent, splits):
    """A client that asks the same row a hundred times gives one trial, or independent coins would be none."""
    mark, marked = served
    where, moves = mark.triggers(marked.model, marked.key, marked.rows)
    row = splits.train.x[where[:1]]
    claim = mark.with_queries(marked, row.expand(100, -1, -1, -1))
    wrong = (logits_of(innocent[0], row).argmax(1) + moves[0]) % 10
    assert mark.verify(Constant(int(wrong)), claim) == pytest.approx(1 / 9)
    assert mark.verify(innocent[0], claim) == 1


NULLS = [
    (TriggerSet(n=50), trigger_null),
    (Uchida(bits=40, layer=1), weight_null),
    (DeepSigns(rows=6), activation_null),
    (DAWN(rate=0.2), served_null),
]


@pytest.mark.parametrize(("mark", "null"), NULLS, ids=lambda part: type(part).__name__)
def test_nobody_is_accused_more_often_than_the_p_value_says(mark, null, innocent, splits):
    """2,000 keys on each of four unmarked models and on one that always says 3: P[p <= a] is a at most.

    Each of 20 counts may pass a bound that an exact p-value passes once in 200,000 times; the marks that look inside
    have no layer to read in the latter. A p-value that is too small by a factor of two would be seen.
    """
    suspects = innocent + ([Constant(3)] if null in (trigger_null, served_null) else [])
    p = null(mark, keys_of(2000, 77), suspects, splits.test.sample(60, 0))
    assert p.shape == (2000, len(suspects))
    for alpha in (0.5, 0.1, 0.01, 0.001):
        assert (p <= alpha).sum(0).max() <= binom.isf(5e-6, 2000, alpha)
    if null is not served_null:  # there the true class is never the wrong one: far from uniform, on the safe side
        assert (p <= 0.5).mean() > 0.25
        assert (p <= 0.1).mean() > 0.03


@pytest.mark.parametrize(("mark", "null"), NULLS, ids=lambda part: type(part).__name__)
def test_many_keys_at_once_are_verified_as_one_by_one(mark, null, innocent, splits):
    """The first key of the benchmark's blocks, against `verify` on a claim under that key."""
    rows = splits.test.sample(60, 0)
    for number in range(3):
        fast = null(mark, [key_of(number)], innocent, rows)[0]
        if isinstance(mark, DAWN):
            claim = mark.with_queries(mark.embed(innocent[0], rows, key_of(number), generator=seed(0)), rows.x)
        else:
            claim = WatermarkedModel(innocent[0], key_of(number), rows)
        assert fast.tolist() == pytest.approx([mark.verify(suspect, claim) for suspect in innocent])


def test_what_cannot_be_right_is_refused(innocent, splits):
    """One line each: what was given, what is accepted, the mend."""
    cases = [
        (lambda: TriggerSet(n=0), "n must be positive"),
        (lambda: TriggerSet(share=1.0), "share between 0 and 1"),
        (lambda: Uchida(strength=0), "strength must be positive"),
        (lambda: DeepSigns(classes=0), "must be positive"),
        (lambda: DAWN(rate=1.0), "rate must lie between 0 and 1"),
        (lambda: embed(Uchida(bits=64)), r"64 bits need more entries than layer 2 has, 32: lower bits"),
        (lambda: embed(Uchida(layer=7)), r"layer 7 is none of the 3 linear and convolutional ones"),
        (lambda: embed(DeepSigns(classes=11)), r"has 10 classes, cannot mark 11"),
        (lambda: embed(DeepSigns(layer=0)), r"nothing that is trained lies before it: take another"),
        (lambda: DAWN().verify(innocent[0], embed(DAWN())), r"no rows to show .* \(DAWN.with_queries\)"),
        (lambda: embed(DAWN(), two), r"has 2 classes: .* three at least"),
    ]
    two = Dataset(splits.train.x, splits.train.y % 2, ("even", "odd"), "parity")

    def embed(mark, rows=splits.train):
        return mark.embed(innocent[0], rows, key_of(0), generator=seed(0))

    for call, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
