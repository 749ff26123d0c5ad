"""Structured pruning of networks as people have them: what is left is the wide network with silent channels."""

import copy

import pytest
import torch
from torch import nn

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard, StructuredPruning
from aisec_lab.models import Fit, Normalised


def seed(number):
    return torch.Generator().manual_seed(number)


def image(*between, flattened=()):
    """Two convolutions with something between them, a third behind it, and two linear layers."""
    return nn.Sequential(
        Normalised([0.4, 0.5], [0.2, 0.3]),
        nn.Conv2d(2, 8, 3, padding=1),
        *between,
        nn.Conv2d(8, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        *flattened,
        nn.LazyLinear(6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )


def means(number):
    return torch.linspace(-1, 1, number).tolist(), torch.linspace(0.5, 2, number).tolist()


PIXELS, LONG, CUBE = (2, 8, 8), (2, 12), (2, 4, 4, 4)
# the shape of an input, the network, and its chain: writer, reader, channels that go together
NETWORKS = {
    "batch norm": (PIXELS, lambda: image(nn.BatchNorm2d(8), nn.ReLU()), [(1, 4, 1), (4, 7, 1), (7, 9, 1)]),
    "bare batch norm": (
        PIXELS,
        lambda: image(nn.BatchNorm2d(8, affine=False), nn.ReLU()),
        [(1, 4, 1), (4, 7, 1), (7, 9, 1)],
    ),
    "batch norm of inputs flattened": (
        PIXELS,
        lambda: image(nn.ReLU(), flattened=[nn.BatchNorm1d(256)]),
        [(1, 3, 1), (3, 7, 1), (7, 9, 1)],
    ),
    "normalised inside": (PIXELS, lambda: image(Normalised(*means(8)), nn.ReLU()), [(1, 4, 1), (4, 7, 1), (7, 9, 1)]),
    "normalised by one number": (PIXELS, lambda: image(Normalised(0.1, 0.7)), [(1, 3, 1), (3, 6, 1), (6, 8, 1)]),
    "leaky ReLU, pooling": (
        PIXELS,
        lambda: image(nn.LeakyReLU(0.1), nn.MaxPool2d(3, 2, 1)),
        [(1, 4, 1), (4, 7, 1), (7, 9, 1)],
    ),
    "PReLU by channel": (PIXELS, lambda: image(nn.PReLU(8), nn.AvgPool2d(2)), [(1, 4, 1), (4, 7, 1), (7, 9, 1)]),
    "PReLU": (PIXELS, lambda: image(nn.PReLU()), [(1, 3, 1), (3, 6, 1), (6, 8, 1)]),
    "two norms": (
        PIXELS,
        lambda: image(nn.GroupNorm(4, 8), nn.BatchNorm2d(8), nn.GELU()),
        [(1, 5, 2), (5, 8, 1), (8, 10, 1)],
    ),
    "instance norm": (
        PIXELS,
        lambda: image(nn.InstanceNorm2d(8, affine=True, track_running_stats=True), nn.SiLU()),
        [(1, 4, 1), (4, 7, 1), (7, 9, 1)],
    ),
    "nested": (
        PIXELS,
        lambda: nn.Sequential(
            nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Tanh()),
            nn.Sequential(nn.Conv2d(8, 4, 3), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        ),
        [("0.0", "1.0", 1), ("1.0", "1.3", 1)],
    ),
    "sequences": (
        LONG,
        lambda: nn.Sequential(
            *(nn.Conv1d(2, 8, 3, padding=1, padding_mode="circular"), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)),
            *(nn.Conv1d(8, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)),
        ),
        [(0, 4, 1), (4, 7, 1)],
    ),
    "volumes": (
        CUBE,
        lambda: nn.Sequential(
            nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 4, 2), nn.Flatten(), nn.Linear(4, 3)
        ),
        [(0, 3, 1), (3, 5, 1)],
    ),
}


def built(name):
    """The network, with weights and statistics as if trained, and rows."""
    shape, build, _ = NETWORKS[name]
    torch.manual_seed(0)
    model = build()
    x = torch.rand(9, *shape, generator=seed(1))
    with torch.no_grad():
        model(x)
        for each in model.parameters():
            each.add_(0.1 * torch.randn(each.shape, generator=seed(each.numel())))
        model.train()(x)
    return model.eval(), Dataset(x, torch.arange(9) % 3, tuple("abc"), "noise")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_narrower_network_is_the_wide_one_with_silent_channels(name):
    """Zeros where the half of the channels with the smallest filters is read: the same logits; it can be trained."""
    model, rows = built(name)
    pruned = StructuredPruning(0.5, fit=None)(model, data=rows, generator=seed(0))
    silent = copy.deepcopy(model)
    for writer, reader, together in NETWORKS[name][2]:
        sizes = model.get_submodule(str(writer)).weight.abs().flatten(1).sum(1).view(-1, together).sum(1)
        weight = silent.get_submodule(str(reader)).weight.data
        for unit in sizes.argsort()[: len(sizes) - round(0.5 * len(sizes))].tolist():
            weight.view(len(weight), len(sizes), -1)[:, unit] = 0
        assert len(pruned.get_submodule(str(writer)).weight) == together * round(0.5 * len(sizes))
    torch.testing.assert_close(pruned(rows.x), silent(rows.x), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(pruned(rows.x), model(rows.x), atol=1e-2)
    for before, after in zip(model.modules(), pruned.modules(), strict=True):
        assert type(before) is type(after)
    Fit(epochs=1, batch_size=3)(pruned, rows, Standard(), generator=seed(0))


def test_a_layer_in_two_places_stays():
    torch.manual_seed(0)
    shared = nn.Linear(8, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), shared, nn.ReLU(), shared, nn.Linear(8, 6), nn.Linear(6, 3))
    rows = Dataset(torch.rand(5, 1, 4, 4, generator=seed(0)), torch.zeros(5, dtype=torch.int64), tuple("abc"), "noise")
    pruned = StructuredPruning(0.5, fit=None)(model.eval(), data=rows, generator=seed(0))
    assert [len(layer.weight) for layer in pruned if isinstance(layer, nn.Linear)] == [8, 8, 8, 3, 3]


class Own(nn.Module):
    def forward(self, x):
        return x.flip(1)


class Doubled(nn.Conv2d):
    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(1, 8, 3), Own(), nn.Conv2d(8, 4, 3)], "cannot tell which channels Own reads: use MagnitudePruning"),
        ([nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=2)], "which channels Conv2d reads"),
        ([nn.Conv2d(1, 8, 3), nn.ConvTranspose2d(8, 4, 3)], "which channels ConvTranspose2d reads"),
        ([nn.Conv2d(1, 8, 3), Doubled(8, 8, 3)], "which channels Doubled reads"),
        ([nn.Conv2d(1, 8, 3), nn.Linear(6, 4)], "which channels Linear reads"),
        ([nn.Linear(8, 6), nn.ReLU(), nn.MaxPool2d(2)], "which channels MaxPool2d reads"),
        ([nn.Linear(8, 6), nn.Conv2d(1, 2, 3)], "which channels Conv2d reads"),
        ([nn.Linear(8, 6), nn.Flatten(), nn.Linear(48, 4)], "which channels Flatten reads"),
        ([nn.Conv2d(1, 8, 3), nn.Flatten(2), nn.Linear(36, 4)], "which channels Flatten reads"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_what_mixes_channels_is_refused(layers, message):
    rows = Dataset(torch.rand(5, 1, 8, 8, generator=seed(0)), torch.zeros(5, dtype=torch.int64), tuple("abc"), "noise")
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))
    model(rows.x)
    with pytest.raises(ValueError, match=message):
        StructuredPruning(0.5, fit=None)(model.eval(), data=rows, generator=seed(0))
