"""Models that mix rows or keep them are refused, whatever the operator; models that do neither train."""

import copy
import random
import threading
from functools import partial

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import Fit
from aisec_lab.privacy import DPSGD, FlatClipping, GhostClipping, RowByRowClipping
from aisec_lab.privacy.federated import Federation
from aisec_lab.privacy.per_sample_check import check_per_sample

WIDTH = 6


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def rows():
    x = torch.rand(40, WIDTH, generator=seed(0))
    return Dataset(x, torch.arange(40) % 3, ("a", "b", "c"), "made")


def shifted(x, by):
    return torch.cat([torch.zeros_like(x[:by]), x[:-by]]) if by < len(x) else torch.zeros_like(x)


def bins(x):
    return (4 * x.sum(1)).long().remainder(5)


def scattered(x):
    """The mean of the rows that fall into the same bin, by scatter."""
    place = bins(x)
    sums = torch.zeros(5, x.shape[1]).index_add(0, place, x)
    counts = torch.zeros(5).scatter_add(0, place, torch.ones(len(x)))
    return (sums / counts.clamp(min=1)[:, None])[place]


def deduplicated(x):
    """How many rows there are like this one, to one digit."""
    _, inverse, counts = (10 * x).round().unique(dim=0, return_inverse=True, return_counts=True)
    return counts[inverse][:, None].to(x).expand_as(x)


class Straight(torch.autograd.Function):
    """Takes the batch's mean off, and says that it does nothing."""

    @staticmethod
    def forward(ctx, x):
        return x - x.mean(0)

    @staticmethod
    def backward(ctx, grad):
        return grad


def causal(x):
    mask = torch.ones(len(x), len(x)).tril().bool()
    return ((x @ x.T).masked_fill(~mask, -torch.inf)).softmax(1) @ x


MIXING = {
    "cumulative sum": lambda x: x.cumsum(0),
    "cumulative maximum": lambda x: x.cummax(0).values,
    "the row before": lambda x: shifted(x, 1),
    "two rows before": lambda x: shifted(x, 2),
    "seven rows before": lambda x: shifted(x, 7),
    "the row after": lambda x: shifted(x.flip(0), 1).flip(0),
    "a roll": lambda x: x.roll(3, 0),
    "mean": lambda x: x.mean(0).expand_as(x),
    "sum": lambda x: x.sum(0).expand_as(x),
    "maximum": lambda x: x.amax(0).expand_as(x),
    "median": lambda x: x.median(0).values.expand_as(x),
    "length": lambda x: (x / x.norm()).expand_as(x),
    "softmax": lambda x: x.softmax(0),
    "sorted": lambda x: x.sort(0).values,
    "rank": lambda x: x.argsort(0).argsort(0).to(x) / 7,
    "the row that is largest": lambda x: x[x.sum(1).argmax()].expand_as(x),
    "nearest other row": lambda x: x[(torch.cdist(x, x) + 9 * torch.eye(len(x))).argmin(1)],
    "attention": lambda x: (x @ x.T).softmax(1) @ x,
    "causal attention": causal,
    "a coarse mean": lambda x: (10 * x.mean()).long().to(x).expand_as(x),
    "rows of its bin": scattered,
    "rows like it": deduplicated,
    "gram matrix": lambda x: torch.einsum("nd,md->nm", x, x).sort(1).values[:, -3:].mean(1, keepdim=True).expand_as(x),
    "covariance": lambda x: x @ torch.einsum("nd,ne->de", x, x),
    "a function of its own": Straight.apply,
    "above the quantile": lambda x: (x > x.quantile(0.8, 0)).to(x),
    "best three": lambda x: x.scatter(0, x.topk(3, 0).indices, 2.0),
    "through numpy": lambda x: torch.from_numpy(x.detach().numpy().cumsum(0)),
    "through lists": lambda x: torch.tensor([max(row) for row in zip(*x.tolist(), strict=True)]).expand_as(x),
    "how many rows": lambda x: x * len(x),
    "place in the batch": lambda x: x + torch.arange(len(x))[:, None],
    "the first row": lambda x: x[:1].expand_as(x),
    "the last row": lambda x: x[-1:].expand_as(x),
}
APART = {
    "nothing": lambda x: x,
    "sum over columns": lambda x: x.cumsum(1),
    "sorted columns": lambda x: x.sort(1).values,
    "mean of columns": lambda x: x - x.mean(1, keepdim=True),
    "softmax over columns": lambda x: x.softmax(1),
    "roll of columns": lambda x: x.roll(1, 1),
    "a coarse number": lambda x: (10 * x).long().to(x),
    "scattered columns": lambda x: torch.zeros_like(x).scatter_add(1, x.argsort(1), x),
    "outer product": lambda x: torch.einsum("nd,ne->nde", x, x).amax(2),
    "rank in a row": lambda x: x.argsort(1).argsort(1).to(x) / 6,
    "through lists": lambda x: torch.tensor([sorted(row) for row in x.tolist()]).reshape(x.shape),
    "best of a row": lambda x: x.topk(3, 1).values.mean(1, keepdim=True).expand_as(x),
    "attention to oneself": lambda x: ((x[:, :, None] @ x[:, None]).softmax(2) @ x[:, :, None]).squeeze(2),
}


class Model(nn.Module):
    """Two layers with an operator before, between or after them."""

    def __init__(self, operator, place, scale, detached, between):
        super().__init__()
        self.first, self.between, self.last = nn.Linear(WIDTH, WIDTH), between, nn.Linear(WIDTH, 3)
        self.operator, self.place, self.scale, self.detached = operator, place, scale, detached

    def act(self, x, place):
        if place != self.place:
            return x
        found = self.operator(x.detach() if self.detached else x)
        return x + self.scale * found

    def forward(self, x):
        x = self.between(self.first(self.act(x.flatten(1), "before")))
        return self.act(self.last(self.act(x, "between")), "after")


BETWEEN = [nn.Identity, nn.ReLU, nn.Tanh, lambda: nn.Dropout(0.3), lambda: nn.LayerNorm(WIDTH)]


def models(operators):
    """Models with one of the operators, somewhere, at some scale, by value or detached, around some layer."""

    def made(name, place, scale, detached, between):
        torch.manual_seed(0)
        return Model(operators[name], place, scale, detached, between())

    return st.builds(
        made,
        st.sampled_from(sorted(operators)),
        st.sampled_from(["before", "between", "after"]),
        st.sampled_from([0.01, 0.3, 1.0, -2.0]),
        st.booleans(),
        st.sampled_from(BETWEEN),
    )


def fit(model, rows):
    recipe = DPSGD(noise_multiplier=1.0, clipping=RowByRowClipping())
    return Fit(epochs=1, batch_size=8)(model, rows, recipe, generator=seed(1))


@given(models(MIXING))
@settings(max_examples=60, deadline=None)
def test_no_model_that_mixes_rows_trains(rows, model):
    """Any operator, any distance, detached or not, by value, by rank or by number; nothing of the model changes."""
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="mixes the rows of a batch"):
        fit(model, rows)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@given(models(APART))
@settings(max_examples=40, deadline=None)
def test_all_models_that_keep_rows_apart_train(rows, model):
    """They move, and no row is dropped on the way."""
    before = copy.deepcopy(model.state_dict())
    (record,) = fit(model, rows)
    assert record["dropped_rows"] == 0
    assert not torch.equal(model.last.weight, before["last.weight"])


class Keeping(nn.Module):
    """A linear model that keeps something of what it is shown."""

    def __init__(self, keep, *, persistent=True):
        super().__init__()
        self.layer, self.keep, self.calls = nn.Linear(WIDTH, 3), keep, 0
        self.register_buffer("kept", torch.zeros(WIDTH), persistent=persistent)

    def forward(self, x):
        self.calls += 1
        self.keep(self, x.detach())
        return self.layer(x)


def lazily(model, x):
    model.register_buffer("late", x[0].clone())


def in_a_weight(model, x):
    model.layer.bias.data.copy_(x[0, :3])


def at_last(model, x):
    if model.calls > 300:
        model.kept = x[0].clone()


def when_it_is_asked(model, x):
    if not model.training:
        model.kept = x[0].clone()


KEEPING = {
    "a row": lambda model, x: setattr(model, "kept", x[0].clone()),
    "a row, in place": lambda model, x: model.kept.copy_(x[0]),
    "a running mean": lambda model, x: model.kept.mul_(0.9).add_(0.1 * x.mean(0)),
    "a new buffer": lazily,
    "in a weight": in_a_weight,
    "a count": lambda model, x: model.kept.add_(len(x)),
    "in evaluation mode": when_it_is_asked,
}


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("persistent", [True, False])
def test_no_model_that_keeps_rows_trains(name, persistent, rows):
    """Nor takes part in a federation; and it is none the wiser for having been asked."""
    model = Keeping(KEEPING[name], persistent=persistent)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="changes in a forward pass|mixes the rows"):
        fit(model, rows)
    with pytest.raises(ValueError, match="changes in a forward pass|mixes the rows"):
        Federation(rounds=1)(model, [rows], generator=seed(0))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.kept.any()


class Remembering(nn.Module):
    """A linear model whose Python attributes hold something of the batches before."""

    def __init__(self, act):
        super().__init__()
        self.layer, self.act, self.memory, self.calls = nn.Linear(WIDTH, 3), act, torch.zeros(()), 0

    def forward(self, x):
        out = self.act(self, x)
        self.calls += 1
        return self.layer(x) + out


def last_mean(model, x):
    before, model.memory = model.memory, x.detach().mean()
    return before


def counted_rows(model, x):
    before, model.memory = model.memory, model.memory + len(x)
    return before


def shown_when_asked(model, x):
    if model.training:
        model.memory = x.detach()[0, 0]
        return 0.0
    return model.memory


def in_a_list(model, x):
    before, model.memory = model.memory, [*(model.memory if isinstance(model.memory, list) else []), x.detach().max()]
    return sum(before) if isinstance(before, list) else 0.0


@pytest.mark.parametrize("act", [last_mean, counted_rows, shown_when_asked, in_a_list])
def test_no_model_that_remembers_batches_trains(act, rows):
    """No buffer shows it: what is answered for a row depends on the batches before."""
    model = Remembering(act)
    with pytest.raises(ValueError, match=r"Remembering mixes .*depends on the batches before.*keeps something"):
        fit(model, rows)
    assert model.calls == 0


def same_at_each_call(model, x):
    return float(torch.rand((), generator=torch.Generator().manual_seed(model.calls)))


def unseeded(model, x):
    return float(numpy.random.rand()) + random.random()


@pytest.mark.parametrize("act", [same_at_each_call, unseeded])
def test_chance_and_counts_that_know_no_row_train(act, rows):
    """A schedule by the number of calls, and other libraries' generators."""
    model = Remembering(act)
    before = model.layer.weight.detach().clone()
    fit(model, rows)
    assert not torch.equal(model.layer.weight, before)


class Turned(torch.autograd.Function):
    """The identity; what comes back is `turn`ed."""

    @staticmethod
    def forward(ctx, x, turn):
        ctx.turn = turn
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return ctx.turn(grad), None


class Backward(nn.Module):
    """Two layers with an identity between them whose backward pass is another."""

    def __init__(self, turn, hooked):
        super().__init__()
        self.first, self.last, self.turn, self.hooked = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3), turn, hooked

    def forward(self, x):
        between = self.first(x)
        if self.hooked and between.requires_grad:
            between.register_hook(self.turn)
        return self.last((between if self.hooked else Turned.apply(between, self.turn)).tanh())


TURNS = {
    "centred": (lambda grad: grad - grad.mean(0), False),
    "of one length": (lambda grad: grad / (grad.norm() + 1e-9), False),
    "a roll": (lambda grad: grad.roll(1, 0), False),
    "the largest": (lambda grad: grad * (grad.abs() == grad.abs().max()), False),
    "reversed": (lambda grad: -grad, True),
    "each of one length": (lambda grad: grad / (grad.norm(dim=1, keepdim=True) + 1e-9), True),
    "clamped": (lambda grad: grad.clamp(-0.01, 0.01), True),
}


@pytest.mark.parametrize("clipping", [GhostClipping(), FlatClipping()], ids=["Ghost", "Flat"])
@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("name", TURNS)
def test_no_backward_pass_that_mixes_rows_trains(name, hooked, clipping, rows):
    """The outputs say nothing of it: what some rows add to the sum changes with others."""
    turn, apart = TURNS[name]
    torch.manual_seed(0)
    recipe = DPSGD(noise_multiplier=1.0, clipping=clipping)
    if apart:
        recipe.check_model(Backward(turn, hooked), rows, 4)
        return
    with pytest.raises(ValueError, match="Backward mixes the rows of a batch in its backward pass"):
        recipe.check_model(Backward(turn, hooked), rows, 4)


def test_a_buffer_that_changes_later_ends_the_training_as_it_was(rows):
    """What no trial saw: it is found after the step that did it, and taken back."""
    model = Keeping(at_last)
    with pytest.raises(ValueError, match="the buffer kept changed in a step"):
        Fit(epochs=80, batch_size=8)(model, rows, DPSGD(noise_multiplier=1.0), generator=seed(1))
    assert 300 < model.calls < 320
    assert not model.kept.any()


@given(row=st.integers(0, 39), value=st.floats(0, 1), name=st.sampled_from(sorted(APART)))
@settings(max_examples=20, deadline=None)
def test_all_that_is_published_is_the_same_whatever_a_row_holds(row, value, name, rows):
    """With gradients of zero length: nothing but gradients leads from a row to the state."""
    x = rows.x.clone()
    x[row] = value
    states = []
    for data in (rows, Dataset(x, rows.y, rows.classes, rows.name)):
        torch.manual_seed(0)
        model = Model(APART[name], "between", 1.0, False, nn.LayerNorm(WIDTH))
        recipe = DPSGD(noise_multiplier=0.0, clipping=GhostClipping(1e-30))
        Fit(epochs=1, batch_size=8, momentum=0.0)(model, data, recipe, generator=seed(1))
        states.append(model.state_dict())
    assert all((states[0][key] - states[1][key]).abs().max() < 1e-25 for key in states[0])


LAYERS = {
    "LSTM": (lambda: nn.LSTM(4, 4), r"0 \(LSTM\) mixes.*batch_first=True"),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(4, 1, 8, dropout=0.0),
        r"\(MultiheadAttention\) mixes.*batch_first=True",
    ),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(5), r"0 \(BatchNorm1d\) mixes.*use GroupNorm"),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(5, track_running_stats=True), r"0 \(InstanceNorm1d\) mixes"),
}


class First(nn.Module):
    """The first of what a recurrent layer gives."""

    def forward(self, x):
        return x[0] if isinstance(x, tuple) else x


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_is_named(name):
    make, message = LAYERS[name]
    model = nn.Sequential(make(), First(), nn.Flatten(), nn.Linear(20, 2))
    with pytest.raises(ValueError, match=message):
        check_per_sample(model, torch.rand(2, 5, 4), 8)


@pytest.mark.parametrize("make", [lambda: nn.LSTM(4, 4, batch_first=True), lambda: nn.GRU(4, 4, batch_first=True)])
def test_layers_that_go_along_a_row_pass(make):
    model = nn.Sequential(make(), First(), nn.Flatten(), nn.Linear(20, 2))
    before = copy.deepcopy(model.state_dict())
    check_per_sample(model, torch.rand(2, 5, 4), 8)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_words_are_tried_with_other_words():
    """Whole numbers between the ends of those that there are."""
    words = torch.tensor([[0, 5, 3], [2, 1, 4]])
    check_per_sample(nn.Sequential(nn.Embedding(6, 4), nn.Flatten(), nn.Linear(12, 2)), words, 8)

    class Mean(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    with pytest.raises(ValueError, match=r"1 \(Mean\) mixes the rows"):
        check_per_sample(nn.Sequential(nn.Embedding(6, 4), Mean(), nn.Flatten(), nn.Linear(12, 2)), words, 8)


@pytest.mark.parametrize("hook", [nn.utils.weight_norm, partial(prune.l1_unstructured, name="weight", amount=0.5)])
def test_weights_that_hooks_compute_are_trained(hook, rows):
    """The last pass has left a weight with its graph, of which torch makes no copy."""
    model = nn.Sequential(layer := nn.Linear(WIDTH, 3))
    hook(layer)
    model(rows.x)
    before = layer.bias.detach().clone()
    Fit(epochs=1, batch_size=8)(
        model, rows, DPSGD(noise_multiplier=1.0, clipping=RowByRowClipping()), generator=seed(1)
    )
    assert not torch.equal(layer.bias, before)


def test_what_a_pass_changes_or_nobody_can_copy_is_refused():
    """The vectors of spectral norm; a lock."""
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 3)))
    with pytest.raises(ValueError, match="changes in a forward pass"):
        check_per_sample(model, torch.rand(2, 4), 8)
    model = nn.Sequential(nn.Linear(4, 3))
    model.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be copied, and is tried on a copy \(cannot pickle .*lock"):
        check_per_sample(model, torch.rand(2, 4), 8)


def test_a_frozen_backbone_keeps_its_statistics(rows):
    """Transfer learning: batch norms whose weights are frozen stay as they are, and the head trains privately."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU())
    backbone(rows.x)
    model = nn.Sequential(backbone.requires_grad_(False), nn.Linear(8, 3))
    before = copy.deepcopy(model.state_dict())
    for recipe in (DPSGD(noise_multiplier=1.0), DPSGD(noise_multiplier=1.0, clipping=RowByRowClipping()), Standard()):
        Fit(epochs=1, batch_size=8)(model, rows, recipe, generator=seed(1))
    after = model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["1.weight", "1.bias"]
