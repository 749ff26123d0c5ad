"""Ghost clipping: norms and weighted sums of rows' gradients, layer by layer, and where it would be wrong."""

import copy
from contextlib import ExitStack

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from aisec_lab.models import CNN, MLP, BagOfEmbeddings, ResNet, TextCNN
from aisec_lab.privacy import per_sample_grad
from aisec_lab.privacy.ghost import ghost_gradients
from aisec_lab.privacy.gradients import opacus_gradients, trainable_parameters


def seed(number):
    return torch.Generator().manual_seed(number)


def losses_of(model, x):
    """A loss a row that uses all of the output, each number with a weight of its own."""
    output = model(x).flatten(1)
    return (output * torch.linspace(-1, 2, output.shape[1], dtype=output.dtype)).sin().sum(1)


def one_by_one(model, x):
    """Rows' gradients (N, *shape) by weight, from a pass for each row."""
    weights = list(trainable_parameters(model).values())
    rows = [
        torch.autograd.grad(losses_of(model, x[i : i + 1]).sum(), weights, allow_unused=True) for i in range(len(x))
    ]
    return [
        torch.stack([torch.zeros_like(w) if g is None else g for g in grads])
        for w, grads in zip(weights, zip(*rows, strict=True), strict=True)
    ]


def check(model, x, tolerance=1e-9):
    """Norms and a weighted sum with factors of each row's and weight's own."""
    rows = one_by_one(model, x)
    with ghost_gradients(model) as gradients:
        found = gradients(lambda: losses_of(model, x))
    norms = torch.stack([row.flatten(1).norm(dim=1) for row in rows])
    assert norms.max() > 0.01
    torch.testing.assert_close(found.norms, norms, rtol=tolerance, atol=tolerance)
    factors = torch.rand(norms.shape, dtype=norms.dtype, generator=seed(5))
    for total, row, factor in zip(found.weighted_sums(factors), rows, factors, strict=True):
        torch.testing.assert_close(total, torch.einsum("n,n...->...", factor, row), rtol=tolerance, atol=tolerance)
    assert all(weight.grad is None for weight in model.parameters())


def images(*shape):
    return torch.rand(4, *shape, dtype=torch.float64, generator=seed(1))


def tokens(length):
    return torch.randint(0, 6, (4, length), generator=seed(2))


def sequence(*layers):
    return nn.Sequential(*layers)


LAYERS = {
    "linear": (sequence(nn.Linear(5, 3)), images(5)),
    "linear without bias": (sequence(nn.Linear(5, 3, bias=False)), images(5)),
    "linear on places": (sequence(nn.Linear(5, 3)), images(7, 5)),
    "linear on a grid": (sequence(nn.Linear(5, 3)), images(2, 3, 5)),
    "conv": (sequence(nn.Conv2d(3, 4, 3)), images(3, 7, 6)),
    "conv with stride": (sequence(nn.Conv2d(3, 4, 3, stride=(2, 3), padding=1, bias=False)), images(3, 8, 9)),
    "conv with groups": (sequence(nn.Conv2d(4, 6, (3, 2), padding=(1, 0), groups=2)), images(4, 6, 6)),
    "conv by depth": (sequence(nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=2)), images(4, 6, 7)),
    "conv padded alike": (sequence(nn.Conv2d(2, 3, (4, 3), padding="same", dilation=(1, 2))), images(2, 7, 7)),
    "conv reflected": (sequence(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")), images(2, 5, 5)),
    "conv of one spot": (sequence(nn.Conv2d(2, 3, 3)), images(2, 3, 3)),
    "conv of sequences": (sequence(nn.Conv1d(3, 4, 3, stride=2, padding=2, dilation=2, groups=1)), images(3, 9)),
    "conv of sequences alike": (sequence(nn.Conv1d(4, 4, 4, padding="same", groups=2)), images(4, 9)),
    "group norm": (sequence(nn.GroupNorm(2, 6)), images(6, 3, 4)),
    "group norm of columns": (sequence(nn.GroupNorm(3, 6, eps=0.1)), images(6)),
    "layer norm": (sequence(nn.LayerNorm(5)), images(3, 5)),
    "layer norm of two axes": (sequence(nn.LayerNorm((3, 5), bias=False)), images(2, 3, 5)),
    "embedding": (sequence(nn.Embedding(6, 3)), tokens(9)),
    "embedding with padding": (sequence(nn.Embedding(6, 3, padding_idx=2)), tokens(9)),
    "two layers in place": (
        sequence(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(27, 2)),
        images(2, 5, 5),
    ),
    "CNN": (CNN(4, 6)((1, 8, 8), 3, generator=seed(0)), images(1, 8, 8)),
    "ResNet": (ResNet(1, 4)((3, 16, 16), 3, generator=seed(0)), images(3, 16, 16)),
    "MLP": (MLP((6, 5))((7,), 3, generator=seed(0)), images(7)),
    "BagOfEmbeddings": (BagOfEmbeddings(4)(6, 3, generator=seed(0)), tokens(5).clamp(min=1)),
    "TextCNN": (TextCNN(4, 5, 3)(6, 3, generator=seed(0)), tokens(5).clamp(min=1)),
}
WAYS = {
    "as it chooses": {},
    "held": {"GRAD_SAMPLE_LIMIT": 1e9, "CHUNK": 50},
    "pairs": {"GRAD_SAMPLE_LIMIT": 0, "FLOAT64_COST": 0, "CHUNK": 50},
    "made again": {"GRAD_SAMPLE_LIMIT": 0, "FLOAT64_COST": 1e9, "CHUNK": 50},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LAYERS)
def test_norms_and_sums_are_those_of_single_rows(name, way, monkeypatch):
    for constant, value in WAYS[way].items():
        monkeypatch.setattr(per_sample_grad, constant, value)
    model, x = LAYERS[name]
    check(copy.deepcopy(model).double().train(), x)


OVERLOOKED = ["conv reflected", "embedding with padding", "TextCNN"]  # Opacus counts what autograd does not
UNKNOWN = ["layer norm of two axes"]  # without a bias it fails


@pytest.mark.parametrize("name", sorted(set(LAYERS) - {*OVERLOOKED, *UNKNOWN, "two layers in place"}))
def test_opacus_finds_the_same(name):
    model, x = LAYERS[name]
    model = copy.deepcopy(model).double().train()
    with ExitStack() as stack:
        ours = stack.enter_context(ghost_gradients(model))(lambda: losses_of(model, x))
        theirs = stack.enter_context(opacus_gradients(model))(lambda: losses_of(model, x))
    torch.testing.assert_close(ours.norms, theirs.norms, rtol=1e-6, atol=1e-9)
    factors = torch.rand(ours.norms.shape, dtype=torch.float64, generator=seed(5))
    for one, other in zip(ours.weighted_sums(factors), theirs.weighted_sums(factors), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 5), groups=st.integers(1, 3), inside=st.integers(1, 3), out=st.integers(1, 3), size=pair,
    stride=pair, dilation=pair, padding=st.one_of(st.just("valid"), st.tuples(st.integers(0, 3), st.integers(0, 3))),
    sides=st.tuples(st.integers(7, 10), st.integers(7, 10)), held=st.sampled_from([0, 3]), bias=st.booleans(),
)  # fmt: skip
def test_any_convolution(n, groups, inside, out, size, stride, dilation, padding, sides, held, bias):
    model = nn.Conv2d(groups * inside, groups * out, size, stride, padding, dilation, groups, bias).double()
    x = torch.rand(n, groups * inside, *sides, dtype=torch.float64, generator=seed(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(per_sample_grad, "GRAD_SAMPLE_LIMIT", held)
        check(model, x)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 5), places=st.integers(1, 6), inputs=st.integers(1, 12), outputs=st.integers(1, 12))
def test_any_linear_layer(n, places, inputs, outputs):
    check(nn.Linear(inputs, outputs).double(), torch.rand(n, places, inputs, dtype=torch.float64, generator=seed(3)))


def test_terms_that_cancel_do_not_hide_a_norm(monkeypatch):
    """A thousand places of large opposite terms and a rest of 1e-2: in float32 pairs of places would give anything."""
    monkeypatch.setattr(per_sample_grad, "GRAD_SAMPLE_LIMIT", 0)
    monkeypatch.setattr(per_sample_grad, "FLOAT64_COST", 0)
    x = torch.full((1, 1000, 1), 100.0)
    signs = torch.ones(1000, 1)
    signs[1::2] = -1
    signs[0] += 1e-4
    layer = nn.Linear(1, 1, bias=False)
    with ghost_gradients(layer) as gradients:
        found = gradients(lambda: (layer(x) * signs).sum((1, 2)))
    assert found.norms.item() == pytest.approx(1e-2, rel=1e-2)


def test_frozen_weights_are_left_out():
    """Each in turn; the others' gradients are what they were, and the order is the model's."""
    for frozen in range(8):
        model = CNN(4, 6)((1, 8, 8), 3, generator=seed(0)).double()
        list(model.parameters())[frozen].requires_grad_(False)
        check(model, images(1, 8, 8))


def test_a_weight_that_nobody_uses_has_gradients_of_zero():
    model = nn.Linear(5, 3).double()
    model.spare = nn.Parameter(torch.ones(2, dtype=torch.float64))
    check(model, images(5))


def test_the_model_is_not_touched():
    model = CNN(4, 6)((1, 8, 8), 3, generator=seed(0)).double()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    with ghost_gradients(model) as gradients:
        gradients(lambda: losses_of(model, images(1, 8, 8)))
        assert {name: set(vars(module)) for name, module in model.named_modules()} == before
        assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
        copy.deepcopy(model)
    assert not any(vars(weight) for weight in model.parameters())


class Uses(nn.Module):
    """Two layers of five columns, used as `how` says."""

    def __init__(self, how):
        super().__init__()
        self.how, self.first, self.second = how, nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x):
        return self.how(self, x)


def overwritten(model, x):
    hidden = model.first(x).relu()
    return model.second(hidden) + hidden.mul_(2)


def run_again(model, x):
    """The first layer runs without gradients, and once more during the backward pass."""
    return checkpoint(model.first, model.second(x), use_reentrant=True)


def shared(model, x):
    return F.linear(model.first(x), model.first.weight)


WRONG = {
    "a layer that runs twice": (lambda m, x: m.first(m.first(x)), "first.weight is used twice"),
    "a weight of two layers": (shared, "first.weight is used twice"),
    "one weight as both": (lambda m, x: F.linear(x, m.first.weight, m.first.weight), "first.weight is used twice"),
    "a weight as input": (lambda m, x: m.second(x) + m.first(m.second.weight)[0], "used twice"),
    "a weight as the only input": (lambda m, x: x + F.linear(m.first.weight, m.second.weight)[0], "is the input of"),
    "a product": (lambda m, x: m.second(x @ m.first.weight), "knows no norm for torch.*matmul.* of first.weight"),
    "a sum": (lambda m, x: m.second(x) + m.first.bias, "knows no norm for torch.*add.* of first.bias"),
    "a copy": (lambda m, x: F.linear(x, m.first.weight.clone()), "knows no norm for torch.*clone of first.weight"),
    "a penalty": (lambda m, x: m.second(x) + m.first.weight.norm(), "knows no norm"),
    "a second forward pass": (run_again, "first.weight is used where ghost clipping does not see it"),
    "rows that become places": (lambda m, x: m.first(x.reshape(-1, 5)).reshape(x.shape), "first axis of 12 for 4 rows"),
    "an input that is overwritten": (overwritten, "overwritten by a later one"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_would_be_cut_by_wrong_norms_is_refused(name):
    how, message = WRONG[name]
    model = Uses(how).double()
    with ghost_gradients(model) as gradients, pytest.raises(ValueError, match=message):
        gradients(lambda: losses_of(model, images(3, 5)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


OTHERS = {
    "lstm": (Recurrent(), images(3, 5), "knows no norm for .*lstm of lstm.weight"),
    "attention": (
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        images(3, 4),
        "knows no norm for .*multi_head",
    ),
    "transposed": (nn.ConvTranspose2d(2, 3, 3), images(2, 5, 5), "knows no norm for .*conv_transpose2d of weight"),
    "max_norm": (nn.Embedding(6, 3, max_norm=1.0), tokens(4), "max_norm or scale_grad_by_freq mixes rows"),
    "frequencies": (
        nn.Embedding(6, 3, scale_grad_by_freq=True),
        tokens(4),
        "max_norm or scale_grad_by_freq mixes rows",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_layers_without_a_known_norm_are_refused_by_name(name):
    model, x, message = OTHERS[name]
    model = copy.deepcopy(model).double()
    with ghost_gradients(model) as gradients, pytest.raises(ValueError, match=message):
        gradients(lambda: losses_of(model, x))


def test_opacus_takes_a_layer_that_runs_twice():
    """What ghost clipping refuses, and where it sends to: `FlatClipping` finds the rows' own gradients."""
    model = Uses(lambda m, x: m.second(m.first(m.first(x)))).double().train()
    rows = one_by_one(model, images(5))
    with opacus_gradients(model) as gradients:
        found = gradients(lambda: losses_of(model, images(5)))
    torch.testing.assert_close(found.norms, torch.stack([row.flatten(1).norm(dim=1) for row in rows]))


OUTSIDE = (Uses(lambda m, x: m.second(shared(m, x))), images(5), "first.weight")
REFUSED = [OUTSIDE, *((*LAYERS[name], "weight") for name in OVERLOOKED)]


@pytest.mark.parametrize(("model", "x", "weight"), REFUSED, ids=["outside", *OVERLOOKED])
def test_what_opacus_overlooks_is_refused(model, x, weight):
    """It would cut by other norms than the gradients'."""
    model = copy.deepcopy(model).double().train()
    with opacus_gradients(model) as gradients, pytest.raises(ValueError, match=f"{weight} do not add up to autograd's"):
        gradients(lambda: losses_of(model, x))
