"""Compression of layers of every kind: the share that is asked is reached, or what is left out is said."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from aisec_lab.data import Dataset
from aisec_lab.defenses import (
    HYDRA,
    DynamicInt8,
    FinePruning,
    MagnitudePruning,
    Standard,
    StaticInt8,
    TriggerSet,
    WeightOnly,
)
from aisec_lab.defenses.compression.magnitude import sparsity
from aisec_lab.defenses.detection.detectors import features_of
from aisec_lab.models import Fit

SHORT = Fit(epochs=1, batch_size=16, weight_decay=0.0)


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def rows():
    return Dataset(torch.rand(33, 1, 8, 8, generator=seed(0)), torch.arange(33) % 3, ("a", "b", "c"), "made")


class Recurrent(nn.Module):
    """Reads an image line by line."""

    def __init__(self, kind, **settings):
        super().__init__()
        self.memory, self.last = kind(8, 16, batch_first=True, **settings), nn.LazyLinear(3)

    def forward(self, x):
        return self.last(self.memory(x.squeeze(1))[0][:, -1])


class Attending(nn.Module):
    """A transformer's layer on the lines of an image, with a learned vector for each place."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 8, 8))
        self.layer, self.last = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(64, 3)

    def forward(self, x):
        return self.last(self.layer(x.squeeze(1) + self.place).flatten(1))


class Words(nn.Module):
    """Sixteen grey values as words."""

    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(16, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.table((15 * x.flatten(1)).long()).mean(1))


class Tied(nn.Module):
    """One matrix in two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.last(self.second(self.first(x.flatten(1)).relu()).relu())


class Lines(nn.Module):
    """An image as a sequence of lines."""

    def forward(self, x):
        return x.squeeze(1)


MODELS = {
    "LSTM": lambda: Recurrent(nn.LSTM),
    "LSTM of two layers": lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True, proj_size=4),
    "GRU": lambda: Recurrent(nn.GRU),
    "RNN": lambda: Recurrent(nn.RNN),
    "attention": Attending,
    "embedding": Words,
    "tied": Tied,
    "Conv1d": lambda: nn.Sequential(
        Lines(), nn.Conv1d(8, 16, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    ),
    "Conv3d": lambda: nn.Sequential(
        *(nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 4, (1, 3, 3), padding="same"), nn.ReLU(), nn.Flatten()),
        nn.Linear(256, 3),
    ),
    "ConvTranspose2d": lambda: nn.Sequential(nn.ConvTranspose2d(1, 4, 3, groups=1), nn.Flatten(), nn.Linear(400, 3)),
    "Conv2d, reflected": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), nn.LayerNorm((4, 8, 8)), nn.Flatten(), nn.Linear(256, 3)
    ),
}
LEFT = {  # of their weights, what quantisation leaves as it is
    "LSTM": ["memory"],
    "LSTM of two layers": ["memory"],
    "GRU": ["memory"],
    "RNN": ["memory"],
    "attention": ["the model", "layer.self_attn"],
    "embedding": ["table"],
    "ConvTranspose2d": ["0"],
}


def built(name, x):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    model(x)
    return model


def weights(model):
    """All that pruning is about: no vectors, no norms."""
    norms = {w for layer in model.modules() if isinstance(layer, nn.LayerNorm) for w in layer.parameters()}
    return [weight for weight in model.parameters() if weight.ndim > 1 and weight not in norms]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fit", [None, SHORT], ids=["alone", "trained"])
def test_the_share_that_is_asked_is_zero(fit, name, rows):
    """Of all weights, whatever layer holds them; and the model works with the weights that it shows."""
    model = built(name, rows.x)
    pruned = MagnitudePruning(0.8, rounds=1, fit=fit)(model, data=rows, generator=seed(0))
    flat = torch.cat([weight.flatten() for weight in weights(pruned)])
    assert int((flat == 0).sum()) == round(0.8 * len(flat))
    assert sparsity(pruned) == pytest.approx(0.8, abs=1 / len(flat))
    fresh = MODELS[name]().eval()
    fresh(rows.x)
    fresh.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(fresh(rows.x), pruned(rows.x))


@pytest.mark.parametrize("name", MODELS)
def test_robust_pruning_prunes_each_weight_by_the_share(name, rows):
    model = built(name, rows.x)
    pruned = HYDRA(Standard(), 0.8, SHORT, SHORT)(model, data=rows, generator=seed(0))
    assert pruned.state_dict().keys() == model.state_dict().keys()
    for weight in weights(pruned):
        assert int((weight != 0).sum()) == max(1, round(0.2 * weight.numel()))
    fresh = MODELS[name]().eval()
    fresh(rows.x)
    fresh.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(fresh(rows.x), pruned(rows.x))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("quantisation", [WeightOnly(8), DynamicInt8(), StaticInt8()], ids=repr)
def test_what_is_not_quantised_is_said(quantisation, name, rows):
    model = built(name, rows.x)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        smaller = quantisation(model, data=rows, generator=seed(0))
    expected = [f"not quantised, neither linear nor a convolution: {', '.join(LEFT[name])}"] if name in LEFT else []
    assert [str(each.message) for each in said] == expected
    given = smaller(rows.x)
    torch.testing.assert_close(given, model(rows.x), atol=0.05, rtol=0.05)
    assert not torch.equal(given, model(rows.x))
    with torch.no_grad():  # where a transformer's layer would take a short cut, past what rounds its inputs
        torch.testing.assert_close(smaller(rows.x), given)
    with pytest.raises(ValueError, match="has rounded weights already: prune before quantising"):
        MagnitudePruning(0.5, fit=None)(smaller, data=rows, generator=seed(0))


class Doubled(nn.Linear):
    """Inherits from a linear layer, and is another function."""

    def forward(self, input):
        return 2 * super().forward(input)


def test_a_layer_that_inherits_and_does_something_else_is_not_quantised(rows):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Doubled(64, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with pytest.warns(UserWarning, match="not quantised, .*: 1$"):
        smaller = WeightOnly(8)(model, data=rows, generator=seed(0))
    torch.testing.assert_close(smaller(rows.x), model(rows.x), atol=0.05, rtol=0.05)


def test_a_hook_goes_with_its_layer(rows):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    model[1].register_forward_hook(lambda _, args, out: out.flip(1))
    smaller = WeightOnly(8)(model, data=rows, generator=seed(0))
    torch.testing.assert_close(smaller(rows.x), model(rows.x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("change", [MagnitudePruning(0.5, fit=None), WeightOnly(8)], ids=repr)
def test_computed_weights_of_any_layer_are_refused(change, rows):
    model = built("LSTM", rows.x)
    prune.l1_unstructured(model.memory, "weight_hh_l0", 0.3)
    with pytest.raises(ValueError, match="the weight_hh_l0 of memory is computed in each pass"):
        change(model, data=rows, generator=seed(0))


@pytest.mark.parametrize(("name", "units"), [("LSTM", 16), ("Conv1d", 16), ("Conv3d", 4), ("ConvTranspose2d", 4)])
def test_fine_pruning_takes_what_the_last_layer_reads(name, units, rows):
    """With a cap that lets everything go, all units; a pass keeps its shape."""
    model = built(name, rows.x)
    before = copy.deepcopy(model.state_dict())
    repaired = FinePruning(cap=0.999, fit=None)(model, rows, generator=seed(0))
    last = [layer for layer in repaired.modules() if isinstance(layer, nn.Linear)][-1]
    assert (last.weight.view(3, units, -1) == 0).all()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Places(nn.Module):
    """Its last layer sees places, not rows."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(x.flatten(0, 2)).view(len(x), 8, 3).mean(1)


def test_features_are_of_rows(rows):
    with pytest.raises(ValueError, match="8 rows of features for each of 33"):
        features_of(Places().eval(), rows.x)


@pytest.mark.parametrize("name", MODELS)
def test_a_trigger_set_is_learned_by_any_kind(name, rows):
    assert TriggerSet(n=4, fit=SHORT).embed(built(name, rows.x), rows, _key(), generator=seed(0)).model(rows.x).shape


def _key():
    from aisec_lab.defenses import Key

    return Key(bytes(32))
