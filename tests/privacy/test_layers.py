"""Layers as people have them: each trains by some clipping that a refusal names, with the rows' own gradients."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import Fit
from aisec_lab.models.training.fit import Losses
from aisec_lab.privacy import DPSGD, FlatClipping, GhostClipping, RowByRowClipping
from aisec_lab.privacy.validation import find_error

CLIPPINGS = {"FlatClipping": FlatClipping, "GhostClipping": GhostClipping, "RowByRowClipping": RowByRowClipping}
PLACES, WIDTH = 5, 4


def seed(number):
    return torch.Generator().manual_seed(number)


class Calls(nn.Module):
    """A part, called as `how` says, and a linear head."""

    def __init__(self, part, how, features=PLACES * WIDTH):
        super().__init__()
        self.part, self.how, self.head = part, how, nn.Linear(features, 3)

    def forward(self, x):
        return self.head(self.how(self.part, x).flatten(1))


class Positions(nn.Module):
    """Vectors of places, without an axis for the batch."""

    def __init__(self):
        super().__init__()
        self.first, self.positions = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.randn(PLACES, WIDTH))

    def forward(self, x):
        return self.first(x) + self.positions


class Looked(nn.Module):
    """Vectors of places out of an embedding that is asked without an axis for the batch."""

    def __init__(self):
        super().__init__()
        self.first, self.positions = nn.Linear(WIDTH, WIDTH), nn.Embedding(PLACES, WIDTH)

    def forward(self, x):
        return self.first(x) + self.positions(torch.arange(PLACES))


class Token(nn.Module):
    """A vector of its own before all places, as in vision transformers."""

    def __init__(self):
        super().__init__()
        self.first, self.token = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.randn(1, 1, WIDTH))

    def forward(self, x):
        return torch.cat([self.token.expand(len(x), -1, -1), self.first(x)], 1)[:, :-1]


def itself(part, x):
    return part(x)


def first(part, x):
    return part(x)[0]


MODELS = {
    "LSTM": lambda: Calls(nn.LSTM(WIDTH, WIDTH, batch_first=True), first),
    "GRU": lambda: Calls(nn.GRU(WIDTH, WIDTH, 2, batch_first=True, bidirectional=True), first, 2 * PLACES * WIDTH),
    "RNN": lambda: Calls(nn.RNN(WIDTH, WIDTH, batch_first=True), first),
    "LSTM cell": lambda: Calls(nn.LSTMCell(WIDTH, WIDTH), lambda part, x: part(x[:, 0])[0], WIDTH),
    "attention": lambda: Calls(nn.MultiheadAttention(WIDTH, 2, batch_first=True), lambda part, x: part(x, x, x)[0]),
    "encoder": lambda: Calls(nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.0, batch_first=True), itself),
    "decoder": lambda: Calls(
        nn.TransformerDecoderLayer(WIDTH, 2, 8, dropout=0.0, batch_first=True), lambda part, x: part(x, x)
    ),
    "tied, transposed": lambda: Calls(
        nn.Linear(WIDTH, WIDTH), lambda part, x: F.linear(part(x).tanh(), part.weight.t())
    ),
    "tied": lambda: Calls(nn.Linear(WIDTH, WIDTH), lambda part, x: F.linear(part(x).tanh(), part.weight)),
    "positions": lambda: Calls(Positions(), itself),
    "positions, looked up": lambda: Calls(Looked(), itself),
    "a token": lambda: Calls(Token(), itself),
    "InstanceNorm1d": lambda: Calls(nn.InstanceNorm1d(PLACES, affine=True), itself),
    "InstanceNorm2d": lambda: Calls(nn.InstanceNorm2d(PLACES, affine=True), lambda part, x: part(x.unsqueeze(3))),
    "GroupNorm": lambda: Calls(nn.GroupNorm(1, PLACES), itself),
    "RMSNorm": lambda: Calls(nn.RMSNorm(WIDTH), itself),
    "PReLU": lambda: Calls(nn.PReLU(PLACES), itself),
    "bilinear": lambda: Calls(nn.Bilinear(WIDTH, WIDTH, WIDTH), lambda part, x: part(x, x)),
    "transposed convolution": lambda: Calls(nn.ConvTranspose1d(PLACES, PLACES, 1), itself),
    "three dimensions": lambda: Calls(nn.Conv3d(1, 1, 1), lambda part, x: part(x[:, None, None])),
    "weight norm": lambda: Calls(nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)), itself),
    "mixed precision": lambda: Calls(nn.Linear(WIDTH, WIDTH), autocast),
    "a frozen half": lambda: Calls(nn.Linear(WIDTH, WIDTH).bfloat16().requires_grad_(False), in_half),
}


def autocast(part, x):
    with torch.autocast("cpu", torch.bfloat16):
        return part(x).tanh().float()


def in_half(part, x):
    return part(x.bfloat16()).float()


def rows():
    x = torch.rand(24, PLACES, WIDTH, generator=seed(0))
    return Dataset(x, torch.arange(24) % 3, ("a", "b", "c"), "made")


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().train()


def naive(model, data, bound):
    """The sum of the rows' cut gradients, from a pass for each row."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    total = 0
    for one, label in zip(data.x, data.y, strict=True):
        grads = torch.autograd.grad(F.cross_entropy(model(one[None]), label[None]), weights)
        grad = torch.cat([part.flatten() for part in grads])
        total = total + grad * (bound / grad.norm()).clamp(max=1)
    return total


def refused(model, clipping):
    """What a clipping says of a model at the door."""
    try:
        DPSGD(noise_multiplier=1.0, clipping=clipping()).check_model(model, rows(), 2)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", MODELS)
def test_each_layer_trains_by_a_clipping_that_is_named(name):
    """The default takes it, or names one that does; whatever clipping takes it, its sum is the naive one."""
    data, bound, taken = rows(), 0.5, []
    for kind, clipping in CLIPPINGS.items():
        model = made(name)
        if find_error(model, data.x, data.y, Standard(), clipping(bound)) is not None:
            continue
        taken.append(kind)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        before = nn.utils.parameters_to_vector(weights).detach().clone()
        with DPSGD(noise_multiplier=0.0, clipping=clipping(bound)).private_step(model, 0.0, 1, seed(0)) as step:
            step(model, SGD(weights, lr=1.0), Losses(Standard(), model, data.x, data.y, seed(0)))
        moved = before - nn.utils.parameters_to_vector(weights).detach()
        rounding = 2e-2 if name == "mixed precision" else 1e-3  # passes in bfloat16 depend on the batch's size
        torch.testing.assert_close(moved, naive(made(name), data, bound), atol=rounding, rtol=rounding)
    assert "RowByRowClipping" in taken
    said = refused(made(name), GhostClipping)
    assert (said is None) == ("GhostClipping" in taken)
    if said is not None:
        assert "\n" not in said
        assert re.fullmatch(r"clipping GhostClipping cannot take Calls: .*: use clipping (\w+)", said)[1] == taken[0]


@pytest.mark.parametrize(("name", "instead"), [("LSTM", "DPLSTM for LSTM"), ("attention", "DPMultiheadAttention for")])
def test_the_layer_that_opacus_has_instead_is_named(name, instead):
    assert re.search(
        rf"use clipping RowByRowClipping, or build .*{instead}.*\(opacus\.layers\)", refused(made(name), FlatClipping)
    )


@pytest.mark.parametrize("clipping", CLIPPINGS.values())
@pytest.mark.parametrize("bound", [0.01, 1.0])
def test_a_row_in_mixed_precision_moves_the_sum_by_no_more_than_the_norm(clipping, bound):
    """Passes are in bfloat16, norms and sums are not: the sensitivity holds to float32's rounding."""
    data, recipe = rows(), DPSGD(noise_multiplier=0.0, clipping=clipping(bound))
    sums = []
    for count in (1, 0):
        model = made("mixed precision")
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        with recipe.private_step(model, 0.0, 1, seed(0)) as step:
            losses = Losses(Standard(), model, data.x[:count], data.y[:count], seed(0))
            step(model, SGD(model.parameters(), lr=1.0), losses)
        sums.append(before - nn.utils.parameters_to_vector(model.parameters()).detach())
    assert bound * 0.99 < (sums[0] - sums[1]).norm() <= bound * (1 + 1e-5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("part", [".", "head"])
def test_weights_of_low_precision_are_refused(kind, part):
    """All or some of them: their rounding is no noise."""
    model = made("GroupNorm")
    (model if part == "." else model.head).to(kind)
    with pytest.raises(ValueError, match=rf"weight is {kind}.*train in float32.*costs no privacy"):
        Fit(epochs=1)(model, rows(), DPSGD(noise_multiplier=1.0), generator=seed(0))


def test_autocast_around_a_training_is_refused():
    """Sums and clipping factors would be in bfloat16, too."""
    recipe = DPSGD(noise_multiplier=1.0, delta=1e-3)
    fit, model = Fit(epochs=1, batch_size=8), made("GroupNorm")
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="inside of the model's forward"):
        fit(model, rows(), recipe, generator=seed(0))


def test_float64_trains_by_the_same_noise():
    """The noise is the same draw, and the sums are float64's."""

    def double(part, x):
        return part(x.double())

    ends = []
    for model in (made("positions"), made("positions").double()):
        model.how = double if next(model.parameters()).dtype == torch.float64 else itself
        fit = Fit(epochs=1, batch_size=8, momentum=0.0)
        fit(model, rows(), DPSGD(noise_multiplier=1.0, clipping=RowByRowClipping()), generator=seed(0))
        ends.append(nn.utils.parameters_to_vector(model.parameters()).detach().double())
    torch.testing.assert_close(*ends, atol=1e-5, rtol=1e-5)
