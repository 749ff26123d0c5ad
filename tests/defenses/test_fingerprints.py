"""Entangled marks, dataset inference and fingerprints: closed forms, enumeration, honest p-values."""

import copy
from dataclasses import replace
from itertools import pairwise, product
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, ttest_ind
from torch import nn

from aisec_lab.attacks import Oracle
from aisec_lab.attacks.extraction.surrogate_training import train_surrogate
from aisec_lab.attacks.ownership.removal import FineTuningAttack
from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.defenses.ownership.boundary import BoundaryFingerprint, crossing
from aisec_lab.defenses.ownership.conferrable import Conferrable
from aisec_lab.defenses.ownership.dataset_inference import DatasetInference, mann_whitney_p_value
from aisec_lab.defenses.ownership.entangled import EntangledWatermark, rank_sum_p_value
from aisec_lab.defenses.ownership.entangling import Entangling, Triggers, soft_nearest_neighbours
from aisec_lab.defenses.ownership.fingerprints import Fingerprint, calibrated
from aisec_lab.defenses.ownership.ipguard import IPGuard
from aisec_lab.defenses.ownership.key import Key
from aisec_lab.defenses.ownership.margins import BlindWalk, MinGD
from aisec_lab.defenses.ownership.watermark import WatermarkedModel
from aisec_lab.defenses.ownership.weight_fingerprint import WeightFingerprint
from aisec_lab.models import MLP, Fit, logits_of
from aisec_lab.models.training.fit_stack import ModelStack, fit_stack

NETWORK = MLP((32,))
FIT = Fit(epochs=12, learning_rate=0.02)
REFERENCES = 49  # so that no p-value is below 1 / 50
MARK = EntangledWatermark(triggers=16, rows=10, fit=Fit(epochs=15, learning_rate=0.01))


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def trained(rows: Dataset, number: int) -> nn.Module:
    model = NETWORK(rows.shape, len(rows.classes), generator=seed(number))
    FIT(model, rows, Standard(), generator=seed(number))
    return model


def linear(weight: list[list[float]], bias: list[float]) -> nn.Module:
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.fixture(scope="module")
def victim(splits):
    """Trained on the first half of the training rows."""
    return trained(splits.train.subset(torch.arange(500)), 0)


@pytest.fixture(scope="module")
def references(splits):
    """Models of other rows than the victim's, each of another part of them."""
    generators = [seed(100 + k) for k in range(REFERENCES)]
    stack = ModelStack(NETWORK, splits.train.shape, 10, generators)
    included = torch.rand(REFERENCES, 1000, generator=seed(1)) < 0.8
    included[:, :500] = False
    fit_stack(stack, splits.train, included, fit=FIT, generators=generators)
    return [stack.unstacked(k) for k in range(REFERENCES)]


@pytest.fixture(scope="module")
def marked(splits):
    """A model with an entangled mark."""
    fresh = MLP((64,))(splits.train.shape, 10, generator=seed(2))
    return MARK.embed(fresh, splits.train, Key.drawn(seed(3)), generator=seed(4))


@given(st.integers(1, 4), st.integers(2, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_chance_is_what_counting_all_draws_gives(draws: int, classes: int, number: int) -> None:
    values = torch.randint(0, classes, (draws, classes), generator=seed(number))
    possible = torch.rand(draws, classes, generator=seed(number + 1)) < 0.7
    possible[:, 0] = True
    every = list(product(*[row.nonzero().squeeze(1).tolist() for row in possible]))
    sums = np.array([sum(int(values[j, k]) for j, k in enumerate(one)) for one in every])
    for one, reached in zip(every, sums, strict=True):
        assert rank_sum_p_value(values, possible, torch.tensor(one)) == pytest.approx((sums >= reached).mean())


def test_an_unmarked_model_is_not_accused_more_often_than_promised(splits, classifier) -> None:
    """Over fresh keys, P[p <= a] <= a within binomial error, whether probabilities or labels are published."""
    rows = splits.test.sample(30, seed=0)
    mark = EntangledWatermark(triggers=4, rows=2)
    for suspect in (classifier, Oracle(classifier, labels_only=True)):
        claims = [mark_claim(rows, number) for number in range(150)]
        p = np.array([mark.verify(suspect, claim) for claim in claims])
        for level in (0.5, 0.1, 0.01):
            assert (p <= level).sum() <= binom.ppf(0.9999, len(p), level)
    assert len(np.unique(p)) > 10


def mark_claim(rows: Dataset, number: int) -> WatermarkedModel:
    """A claim on a model that nobody has marked."""
    return WatermarkedModel(nn.Identity(), Key.drawn(seed(number)), rows)


def test_an_entangled_mark_is_known_by_its_key_alone(splits, marked) -> None:
    plain = MLP((64,))(splits.train.shape, 10, generator=seed(2))
    MARK.fit(plain, splits.train, Standard(), generator=seed(4))
    assert MARK.verify(marked.model, marked) < 1e-9
    assert MARK.verify(Oracle(marked.model, labels_only=True), marked) < 1e-6
    assert MARK.verify(plain, marked) > 0.01
    assert MARK.verify(marked.model, replace(marked, key=Key.drawn(seed(9)))) > 0.01
    right = [(logits_of(model, splits.test.x).argmax(1) == splits.test.y).sum() for model in (plain, marked.model)]
    assert right[1] >= right[0] - 20  # of 400


def test_the_soft_nearest_neighbour_loss_is_the_papers() -> None:
    """Against its sums written out, row by row, and lower where kinds stand apart."""
    generator = seed(0)
    features, group, kind = torch.randn(12, 3, generator=generator), torch.arange(12) % 2, torch.arange(12) % 3 == 0
    distance = (features[:, None] - features).square().sum(2)
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j and group[i] == group[j]]
    temperature = torch.stack([distance[i, j] for i, j in pairs]).mean()
    expected = []
    for i in range(12):
        near = [j for k, j in pairs if k == i]
        every = sum((-distance[i, j] / temperature).exp() for j in near)
        own = sum((-distance[i, j] / temperature).exp() for j in near if kind[j] == kind[i])
        expected.append(-(own / every).log())
    found = soft_nearest_neighbours(features, group, kind)
    assert found == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert soft_nearest_neighbours(features + 5 * kind[:, None], group, kind) < found
    assert soft_nearest_neighbours(features[:2], group[:2], kind[:2]) == 0  # nobody has a neighbour


def test_triggers_follow_from_the_key_and_stay_in_their_square(splits) -> None:
    triggers = Triggers.of(Key.drawn(seed(0)), 200, 3, (1, 8, 8), 10)
    again, other = (Triggers.of(Key.drawn(seed(number)), 200, 3, (1, 8, 8), 10) for number in (0, 1))
    x = splits.test.x[:200]
    stamped = triggers.stamped(x, torch.arange(200))
    assert torch.equal(stamped, again.stamped(x, torch.arange(200)))
    assert not torch.equal(stamped, other.stamped(x, torch.arange(200)))
    assert (triggers.source != triggers.target).all()
    assert len(triggers.target.unique()) == 10
    assert (triggers.where.flatten(1).sum(1) == 9).all()
    untouched = ~triggers.where
    assert torch.equal(stamped[untouched], x[untouched])
    assert set(stamped[triggers.where].tolist()) == {0.0, 1.0}


def test_the_entangling_objective_draws_stamped_rows_of_the_source_class(splits) -> None:
    """Seen from inside the model: the second half of the batch is stamped, and kappa = 0 leaves plain cross-entropy."""
    triggers = Triggers.of(Key.drawn(seed(0)), 4, 2, (1, 8, 8), 10)
    seen = []
    model = NETWORK((1, 8, 8), 10, generator=seed(0))
    handle = model.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    x, y = splits.train.x[:50], splits.train.y[:50]
    losses = Entangling(triggers, splits.train, kappa=0)(model, x, y, generator=seed(1))
    handle.remove()
    (inputs, logits), which = seen[0], torch.randint(4, (50,), generator=seed(1))
    for row, j in zip(inputs[50:], which, strict=True):
        where = triggers.where[j]
        sources = splits.train.x[splits.train.y == triggers.source[j]]
        assert (row == torch.where(where, triggers.pattern[j], sources)).flatten(1).all(1).any()
    classes = torch.cat([y, triggers.target[which]])
    each = nn.functional.cross_entropy(logits, classes, reduction="none")
    assert torch.allclose(losses, each[:50] + each[50:])


def test_a_rank_among_references_is_an_honest_p_value() -> None:
    """All m + 1 ranks of exchangeable similarities are equally likely; ties only raise p; no p is below 1 / (m + 1)."""
    m, trials = 19, 4000
    drawn = torch.randint(0, 30, (trials, m + 1), generator=seed(0)).double()
    p = np.array([Fingerprint(lambda _, v=row[0]: float(v), row[1:]).verify(nn.Identity()) for row in drawn])
    assert p.min() == 1 / (m + 1)
    for level in (0.05, 0.1, 0.5):
        assert (p <= level).sum() <= binom.ppf(0.9999, trials, level)


@pytest.mark.parametrize(("private", "public"), [(2, 2), (5, 100), (100, 5), (12, 12)])
def test_outranking_is_an_honest_p_value(private, public) -> None:
    """Of skewed numbers, of ties, of groups of unequal size; a t-test fails its own level there."""
    rng, trials = np.random.default_rng(0), 400
    for drawn in (
        np.exp(rng.normal(size=(trials, private + public))),
        -np.exp(rng.normal(size=(trials, private + public))),
        rng.integers(0, 3, (trials, private + public)).astype(float),
    ):
        p = np.array([mann_whitney_p_value(row[:private], row[private:]) for row in drawn])
        for level in (0.01, 0.05, 0.3):
            assert (p <= level).sum() <= binom.ppf(0.9999, trials, level)
        if (private, public) == (100, 5) and drawn.min() > 0 and len(np.unique(drawn)) > 3:
            t = ttest_ind(drawn[:, :100], drawn[:, 100:], axis=1, equal_var=False, alternative="greater").pvalue
            assert (t <= 0.01).sum() > binom.ppf(0.9999, trials, 0.01)


def test_outranking_is_counted() -> None:
    """All above all others is one order of so many; equal ones prove nothing."""
    assert mann_whitney_p_value(np.arange(40.0, 80), np.arange(40.0)) == pytest.approx(1 / comb(80, 40))
    assert mann_whitney_p_value(np.array([2.0, 3.0]), np.array([1.0, 2.5])) == pytest.approx(2 / 6)
    assert mann_whitney_p_value(np.zeros(5), np.zeros(7)) == 1


CONFERRABLE = Conferrable(NETWORK, fit=FIT, n=20, candidates=60, copies=4, held_out=9, steps=40, learning_rate=0.02)
KINDS = [IPGuard(n=60), BoundaryFingerprint(n=60), WeightFingerprint(), CONFERRABLE]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_fingerprints_know_the_model_and_a_tuned_copy_and_no_other(kind, splits, victim, references) -> None:
    before = copy.deepcopy(victim.state_dict())
    fingerprint = kind.make(victim, splits.splits["clean"], references, generator=seed(5))
    m = len(fingerprint.null)
    tuned = FineTuningAttack(Fit(epochs=3, learning_rate=0.001))(victim, splits.test, generator=seed(6))
    assert fingerprint.verify(victim) == 1 / (m + 1)
    assert fingerprint.similarity(victim) == pytest.approx(1)
    assert fingerprint.verify(tuned) == 1 / (m + 1)
    assert fingerprint.verify(trained(splits.train.subset(torch.arange(500, 900)), 7)) > 0.05
    assert all(torch.equal(value, before[name]) for name, value in victim.state_dict().items())


def test_conferrable_points_know_a_copy_of_other_weights(splits, victim, references) -> None:
    """What matching weights cannot: a copy that was trained anew, on the victim's answers to rows that it never saw."""
    x = splits.train.x[500:]
    thief = train_surrogate(NETWORK, x, logits_of(victim, x).softmax(1), fit=FIT, generator=seed(8), name="answers")
    conferrable = CONFERRABLE.make(victim, splits.splits["clean"], references, generator=seed(5))
    by_weights = WeightFingerprint().make(victim, splits.splits["clean"], references, generator=seed(5))
    assert conferrable.similarity(thief) > conferrable.null.median() + 0.1
    assert by_weights.similarity(thief) < by_weights.null.max()


def test_ipguard_points_lie_just_across_the_boundary() -> None:
    """On three linear classes: j leads i by k, but not by much more, and no third class leads i; inside the box."""
    model = linear([[4.0, 0, 0, 1], [0, 4, 0, 1], [0, 0, 4, 1]], [0.0, 0, 0])
    x = torch.tensor([[0.9, 0.3, 0.2, 0.5], [0.1, 0.8, 0.3, 0.5], [0.2, 0.1, 0.7, 0.5]])
    z = IPGuard(k=0.5, learning_rate=0.01).points(model, x, torch.tensor([1, 1, 2]))
    logits = model(z)
    i, j, third = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 1]), torch.tensor([2, 0, 0])
    rows = torch.arange(3)
    leads = logits[rows, j] - logits[rows, i]
    assert ((leads >= 0.5) & (leads < 0.7)).all()
    assert (logits[rows, third] <= logits[rows, i] + 1e-6).all()
    assert z.min() >= 0
    assert z.max() <= 1


def test_a_crossing_is_where_the_plane_is() -> None:
    model = linear([[1.0, 2.0], [0.0, 0.0]], [-1.0, 0.0])  # class 0 where x + 2 y > 1
    x, towards = torch.tensor([[1.0, 1.0], [0.9, 0.4]]), torch.tensor([[0.0, 0.0], [0.1, 0.2]])
    expected = [(3 - 1) / 3, (1.7 - 1) / (1.7 - 0.5)]
    assert crossing(model, x, towards).tolist() == pytest.approx(expected, abs=2e-6)


def test_reordered_and_scaled_units_hide_nothing_from_weights(victim, references) -> None:
    fingerprint = WeightFingerprint().make(victim, None, references, generator=seed(0))  # no rows are looked at
    hidden = copy.deepcopy(victim)
    first, last = (layer for layer in hidden if isinstance(layer, nn.Linear))
    order = torch.randperm(32, generator=seed(1))
    with torch.no_grad():
        first.weight.copy_(3 * first.weight[order])
        first.bias.copy_(3 * first.bias[order])
        last.weight.copy_(last.weight[:, order] / 3)
    x = torch.rand(20, 1, 8, 8, generator=seed(2))
    assert torch.allclose(hidden(x), victim(x), atol=1e-4)
    assert fingerprint.similarity(hidden) == pytest.approx(1, abs=1e-5)
    assert fingerprint.verify(MLP((31,))((1, 8, 8), 10, generator=seed(3))) == 1


class Reading(nn.Module):
    """Words, read by a recurrent layer whose last state is classified."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words, self.reader, self.head = nn.Embedding(20, 6), kind(6, 8, num_layers=2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.reader(self.words(x))[0][-1])


def reordered(model: Reading) -> Reading:
    """The same function, with the units of each layer in another order."""
    hidden, orders = copy.deepcopy(model), [torch.randperm(n, generator=seed(n + i)) for i, n in enumerate((6, 8, 8))]

    def moved(value: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        return value.unflatten(0, (-1, 8))[:, order].flatten(0, 1)  # gate by gate

    with torch.no_grad():
        hidden.words.weight.copy_(model.words.weight[:, orders[0]])
        for k, (before, order) in enumerate(pairwise(orders)):
            for name, weight in model.reader.named_parameters():
                if name.endswith(f"l{k}"):
                    read = order if "hh" in name else before
                    own = moved(weight, order)
                    getattr(hidden.reader, name).copy_(own[:, read] if own.ndim > 1 else own)
        hidden.head.weight.copy_(model.head.weight[:, orders[2]])
    return hidden


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_and_words_are_read_and_their_order_hides_nothing(kind) -> None:
    """Each matrix counts: others in its place lower the similarity, whichever it is."""
    model = Reading(kind).eval()
    hidden, x = reordered(model), torch.randint(20, (7, 5), generator=seed(0))
    assert torch.allclose(hidden(x), model(x), atol=1e-5)
    assert not torch.equal(hidden.reader.weight_hh_l0, model.reader.weight_hh_l0)
    similarity = WeightFingerprint().make(model, None, [Reading(kind)], generator=seed(0)).similarity
    assert similarity(model) == pytest.approx(1)
    assert similarity(hidden) == pytest.approx(1)
    matrices = [name for name, weight in model.named_parameters() if weight.ndim > 1]
    assert len(matrices) == 6
    for name in matrices:
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.get_parameter(name).normal_(generator=seed(1))
        assert similarity(other) < 0.97, name
    fresh = Reading(kind)
    for weight in fresh.parameters():
        nn.init.normal_(weight, generator=seed(2))
    assert similarity(fresh) < 0.5


READ = {
    "Conv1d": lambda: nn.Conv1d(3, 4, 3),
    "EmbeddingBag": lambda: nn.EmbeddingBag(10, 4),
    "LSTMCell": lambda: nn.LSTMCell(3, 4),
    "GRUCell": lambda: nn.GRUCell(3, 4),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0"),
    "pruned": lambda: nn.utils.prune.l1_unstructured(nn.LSTM(3, 4), "weight_hh_l0", 0.5),
}
UNREAD = {
    "attention": (lambda: nn.MultiheadAttention(8, 2), "in_proj_weight of 0, a MultiheadAttention"),
    "a transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16), r"in_proj_weight of 0\.self_attn"),
    "both ways": (lambda: nn.LSTM(3, 4, bidirectional=True), "weight_ih_l0 of 0, a LSTM"),
    "projected": (lambda: nn.LSTM(3, 4, proj_size=2), "weight_ih_l0 of 0, a LSTM"),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), "weight of 0, a ConvTranspose2d"),
    "bilinear": (lambda: nn.Bilinear(2, 3, 4), "weight of 0, a Bilinear"),
    "a script": (lambda: torch.jit.script(nn.Linear(2, 3)), "weight of 0, a RecursiveScriptModule"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", UNREAD)
def test_a_matrix_that_cannot_be_read_is_refused_and_not_left_out(kind) -> None:
    """Of the model, and of a suspect: in a line that names it."""
    make, says = UNREAD[kind]
    unread = nn.Sequential(make(), nn.Linear(4, 2))
    plain = nn.Sequential(nn.Linear(4, 2))
    of_plain = WeightFingerprint().make(plain, None, [nn.Sequential(nn.Linear(4, 2))], generator=seed(0))
    for use in (
        lambda: WeightFingerprint().make(unread, None, [plain], generator=seed(0)),
        lambda: of_plain.verify(unread),
    ):
        with pytest.raises(ValueError, match=says) as error:
            use()
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="has no matrix of weights"):
        WeightFingerprint().make(nn.Sequential(nn.ReLU()), None, [plain], generator=seed(0))


@pytest.mark.parametrize("kind", READ)
def test_a_layer_by_itself_is_its_own_likeness_and_no_others(kind) -> None:
    model, other = nn.Sequential(READ[kind]()), nn.Sequential(READ[kind]())
    similarity = WeightFingerprint().make(model, None, [other], generator=seed(0)).similarity
    assert similarity(model) == pytest.approx(1)
    assert similarity(other) < 0.95


def test_margins_on_a_line_are_the_distances_to_the_plane() -> None:
    """Descent ends within a step of the closed form; a blind walk is never shorter, and 0 where the model is wrong."""
    model = linear([[3.0, 4.0], [0.0, 0.0]], [-2.0, 0.0])  # distance (3 x + 4 y - 2) / 5 in L2, / 4 in Linf
    x, y = torch.tensor([[0.8, 0.7], [0.6, 0.5], [0.1, 0.1]]), torch.tensor([0, 0, 0])
    leads = (3 * x[:, 0] + 4 * x[:, 1] - 2).abs()
    step = (0.02, 0.01, 0.005)
    found = MinGD(steps=300, step=step)(model, x, y, generator=seed(0))
    assert torch.equal(found[:, [0, 2, 4]], torch.zeros(3, 3))
    for column, norm, slack in ((3, 5.0, step[1]), (5, 7.0, step[2])):  # the dual norms of (3, 4): L2 5, for Linf 7
        assert ((found[:, column] >= leads / norm - 1e-6) & (found[:, column] <= leads / norm + slack + 1e-6)).all()
    walked = BlindWalk(directions=5, steps=60, step=0.1)(model, x, y, generator=seed(0))
    assert (walked[2] == 0).all()
    assert walked.shape == (3, 15)
    shortest = torch.stack([leads / 4, leads / 5, leads / 7], 1).repeat_interleave(5, 1)
    assert (walked[:2] >= shortest[:2] - 1e-6).all()
    assert torch.equal(walked, BlindWalk(directions=5, steps=60, step=0.1)(model, x, y, generator=seed(0)))


@pytest.mark.parametrize("margins", [BlindWalk(directions=3), MinGD(steps=15)], ids=lambda one: type(one).__name__)
def test_dataset_inference_knows_what_was_learned_by_heart(margins, splits, victim) -> None:
    """And accuses nobody of rows that were split at random; but of rows from elsewhere it does (see `verify`)."""
    rows = splits.train.subset(torch.arange(500, 800))
    heart = replace(rows, y=torch.randint(10, (300,), generator=seed(1)))  # what no one else can know
    private, public = heart.subset(torch.arange(150)), heart.subset(torch.arange(150, 300))
    model = MLP((128,))(rows.shape, 10, generator=seed(2))
    Fit(epochs=60, learning_rate=0.01)(model, private, Standard(), generator=seed(2))
    claim = DatasetInference(margins).make(model, private, public, generator=seed(3))
    assert claim.verify(model) < 1e-6
    assert claim.verify(victim) > 0.01
    near, far = splits.train.subset(torch.arange(500, 750)), splits.train.subset(torch.arange(750, 1000))
    far = replace(far, x=(far.x + 0.7 * torch.randn(far.x.shape, generator=seed(4))).clamp(0, 1))
    elsewhere = DatasetInference(margins).make(victim, near, far, generator=seed(5))
    assert elsewhere.verify(victim) < 1e-6  # the victim has seen none of these rows


REFUSED = {
    "no reference": (lambda: calibrated(lambda _: 0.0, []), "got no reference model"),
    "no trigger": (lambda: EntangledWatermark(triggers=0), "must be positive"),
    "points": (lambda: IPGuard(n=0), "must be positive"),
    "offsets": (lambda: BoundaryFingerprint(offsets=(0.0,)), "between 0 and 1"),
    "candidates": (lambda: Conferrable(NETWORK, n=10, candidates=5), "candidates at least n"),
    "share": (lambda: DatasetInference(share=1.0), "between 0 and 1"),
    "step": (lambda: BlindWalk(step=0), "must be positive"),
    "descent": (lambda: MinGD(step=(0.1, 0.0, 0.1)), "must be positive"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(make, says) -> None:
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


def test_rows_that_do_not_suffice_are_refused(splits, victim, references) -> None:
    few, flat = splits.test.subset(torch.arange(10)), replace(splits.test, x=splits.test.x.flatten(1))
    for make, says in (
        (lambda: IPGuard(n=11).make(victim, few, references, generator=seed(0)), "10 rows, 11 points"),
        (
            lambda: Conferrable(NETWORK, held_out=49).make(victim, few, references, generator=seed(0)),
            "got 49: train more",
        ),
        (lambda: MARK.embed(victim, flat, Key.drawn(seed(0)), generator=seed(0)), "for images"),
        (
            lambda: MARK.embed(victim, few.subset(few.y == few.y[0]), Key.drawn(seed(0)), generator=seed(0)),
            "no row of class",
        ),
        (
            lambda: DatasetInference().make(victim, few.subset(torch.arange(3)), few, generator=seed(0)),
            "got 3: give more",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            make()
