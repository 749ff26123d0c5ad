"""What a model lists and what it calls are two things: features, readouts and quantised layers are of what it calls."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from aisec_lab.data import Dataset
from aisec_lab.defenses import (
    DynamicInt8,
    FinePruning,
    MagnitudePruning,
    NeuralCleanse,
    Standard,
    StaticInt8,
    StructuredPruning,
    WeightOnly,
)
from aisec_lab.defenses.backdoors.pruning import layer_to_prune
from aisec_lab.defenses.detection.detectors import features
from aisec_lab.models import Fit, called_layers, logits_of


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def clean():
    x = torch.rand(41, 1, 4, 4, generator=seed(0))
    return Dataset(x, torch.arange(41) % 3, ("a", "b", "c"), "made")


class Listed(nn.Module):
    """Lists its layers in the reverse order of their calls, and one that it never calls."""

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Linear(16, 5)
        self.last = nn.Linear(7, 3)
        self.middle = nn.Linear(6, 7)
        self.first = nn.Linear(16, 6)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.last(self.middle(self.first(x.flatten(1)).relu()).relu())


def listed():
    torch.manual_seed(0)
    return Listed().eval()


def test_the_order_is_that_of_the_calls(clean):
    model = listed()
    assert called_layers(model, clean.x, nn.Linear) == [model.first, model.middle, model.last]
    seen = features(model, clean.x)
    torch.testing.assert_close(model.last(seen), model(clean.x))
    assert layer_to_prune(model, clean.x) == (model.last, 7)


def test_hooks_are_gone_afterwards(clean):
    model = listed()
    called_layers(model, clean.x, nn.Linear)
    features(model, clean.x)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("quantisation", [WeightOnly(8), DynamicInt8(), StaticInt8()], ids=repr)
def test_only_what_is_called_is_quantised(quantisation, clean):
    model = listed()
    smaller = quantisation(model, data=clean, generator=seed(0))
    assert type(smaller.auxiliary) is type(smaller.unused) is nn.Linear
    assert nn.Linear not in {type(smaller.first), type(smaller.middle), type(smaller.last)}
    torch.testing.assert_close(smaller(clean.x), model(clean.x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("quantisation", [WeightOnly(8), DynamicInt8(), StaticInt8()], ids=repr)
def test_a_layer_that_stands_twice_is_quantised_in_both_places(quantisation, clean):
    torch.manual_seed(0)
    shared = nn.Linear(16, 16)
    model = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared, nn.Linear(16, 3)).eval()
    smaller = quantisation(model, data=clean, generator=seed(0))
    assert smaller[1] is smaller[3]
    assert type(smaller[1]) is not nn.Linear


@pytest.mark.parametrize("quantisation", [WeightOnly(8), DynamicInt8(), StaticInt8()], ids=repr)
def test_attention_keeps_the_layer_that_it_never_calls(quantisation, clean):
    torch.manual_seed(0)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn, self.last = nn.MultiheadAttention(4, 1, batch_first=True), nn.Linear(16, 3)

        def forward(self, x):
            x = x.squeeze(1)
            return self.last(self.self_attn(x, x, x)[0].flatten(1))

    with pytest.warns(UserWarning, match="not quantised, neither linear nor a convolution: self_attn"):
        smaller = quantisation(Attention().eval(), data=clean, generator=seed(0))
    assert smaller(clean.x).shape == (41, 3)


COMPUTED = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "weight norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
    "weight norm by a hook": nn.utils.weight_norm,
    "spectral norm by a hook": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize(
    "change",
    [MagnitudePruning(0.5, fit=None), StructuredPruning(fit=None), FinePruning(fit=None), WeightOnly(8), StaticInt8()],
    ids=lambda change: type(change).__name__,
)
def test_weights_that_are_computed_are_no_place_to_change_them(kind, change, clean):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    COMPUTED[kind](model[1])
    model.eval()
    arguments = (model, clean) if isinstance(change, FinePruning) else (model,)
    data = {} if isinstance(change, FinePruning) else {"data": clean}
    with pytest.raises(ValueError, match="the weight of 1 is computed in each pass"):
        change(*arguments, **data, generator=seed(0))


def test_a_frozen_layer_stays_while_the_others_are_pruned_and_trained(clean):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    model[3].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    FinePruning(fit=Fit(epochs=1))(model, clean, generator=seed(0))
    MagnitudePruning(0.5, rounds=1, fit=Fit(epochs=1))(model, data=clean, generator=seed(0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_training_without_weights_or_with_one_row_left_alone_is_refused(clean):
    """41 rows in batches of 8 leave one, of which a batch norm knows no spread."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"leave one row alone, which 2 \(BatchNorm1d\) cannot normalise"):
        Fit(epochs=1, batch_size=8)(model, clean, Standard(), generator=seed(0))
    Fit(epochs=1, batch_size=9)(model, clean, Standard(), generator=seed(0))
    with pytest.raises(ValueError, match=r"41 rows in batches of 1 leave one row alone, which 2 \(BatchNorm1d\)"):
        Fit(epochs=1, batch_size=1)(model, clean, Standard(), generator=seed(0))
    modes = [part.training for part in model.modules()]
    with pytest.raises(ValueError, match="all weights are frozen"):
        Fit(epochs=1)(model.requires_grad_(False), clean, Standard(), generator=seed(0))
    assert not any(modes)
    assert not any(part.training for part in model.modules())


def test_a_batch_norm_that_is_frozen_takes_one_row(clean):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
    model[2].requires_grad_(False)
    before = copy.deepcopy(model[2].state_dict())
    Fit(epochs=1, batch_size=1)(model, clean, Standard(), generator=seed(0))
    assert all(torch.equal(value, before[name]) for name, value in model[2].state_dict().items())


def test_a_pass_over_many_rows_leaves_each_part_in_its_mode(clean):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3))
    model[2].eval()
    logits_of(model, clean.x)
    assert [part.training for part in model] == [True, True, False]


@pytest.mark.parametrize("columns", [2, 5])
def test_neural_cleanse_needs_classes_to_compare(columns, clean):
    names = ("a", "b") if columns == 2 else ("a", "b", "c")
    rows = Dataset(clean.x, clean.y % 2, names, "made")
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, columns)).eval()
    with pytest.raises(ValueError, match="it needs three at least"):
        NeuralCleanse(rounds=1)(model, rows, generator=seed(0))
