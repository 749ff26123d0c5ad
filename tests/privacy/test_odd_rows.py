"""Rows with gradients of any size, or of none that is a number: the sum moves by the clipping norm at most."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import MLP, Fit
from aisec_lab.models.training.fit import Losses
from aisec_lab.models.training.stack import ModelStack
from aisec_lab.privacy import DPSGD, AdaptiveClipping, FlatClipping, GhostClipping, PerLayerClipping, RowByRowClipping
from aisec_lab.privacy.federated import ClientLevel
from aisec_lab.privacy.monitor import TrainingMonitor
from aisec_lab.privacy.stacked import private_stack_step

CLIPPINGS = [FlatClipping, PerLayerClipping, AdaptiveClipping, GhostClipping, RowByRowClipping]
ODD = [math.nan, math.inf, -math.inf, 3e38, -1e30, 1e20, 1e-40, 1e-23, 0.0]
NORM = 0.1


def seed(number):
    return torch.Generator().manual_seed(number)


class Steep(nn.Module):
    """Multiplies its gradient, and by the root of zero divides by it."""

    def __init__(self, slope, root):
        super().__init__()
        self.slope, self.root, self.layers = slope, root, nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x):
        logits = self.layers(x.abs().sqrt() if self.root else x)
        return logits * self.slope


def moved(x, y, clipping, slope, root):
    """Ten times what a step of SGD at rate 1 makes of the weights, and how many rows were dropped."""
    torch.manual_seed(0)
    model, dropped = Steep(slope, root), TrainingMonitor()
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    with DPSGD(noise_multiplier=0.0, clipping=clipping(NORM)).private_step(model, 0.0, 10, seed(0), dropped) as step:
        losses = step(model, SGD(model.parameters(), lr=1.0), Losses(Standard(), model, x, y, seed(0)))
    assert losses.isfinite().all()
    assert len(losses) == len(x) - dropped.dropped_rows
    return 10 * (nn.utils.parameters_to_vector(model.parameters()).detach() - before), dropped.dropped_rows


@pytest.mark.parametrize("clipping", CLIPPINGS)
@given(
    odd=st.lists(st.sampled_from(ODD), min_size=4, max_size=4),
    place=st.integers(0, 6),
    slope=st.sampled_from([1.0, 1e-38, 1e18, 3e38]),
    root=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_no_row_moves_the_sum_by_more_than_the_norm(clipping, odd, place, slope, root):
    """Whatever it holds, and wherever it stands; no weight becomes NaN, and the other rows count as without it."""
    x, y = torch.rand(6, 4, generator=seed(1)) + 0.1, torch.arange(6) % 3
    with_it = torch.cat([x[:place], torch.tensor([odd]), x[place:]])
    labels = torch.cat([y[:place], torch.tensor([1]), y[place:]])
    without, few = moved(x, y, clipping, slope, root)
    together, many = moved(with_it, labels, clipping, slope, root)
    assert together.isfinite().all()
    assert (together - without).norm() <= NORM * 1.001
    assert many - few in (0, 1)
    if not torch.tensor(odd).isfinite().all():
        assert many - few == 1


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_training_goes_on_and_says_how_many_rows_counted_as_zero(clipping):
    """The root of a black row has no finite gradient; one such row is in each batch of all rows."""
    torch.manual_seed(0)
    x = torch.rand(20, 4, generator=seed(1))
    x[3] = 0
    rows = Dataset(x, torch.arange(20) % 3, ("a", "b", "c"), "made")
    model = nn.Sequential(nn.Linear(4, 4), Root(), nn.Linear(4, 3))
    nn.init.zeros_(model[0].bias)
    recipe = DPSGD(noise_multiplier=1.0, clipping=clipping())
    history = Fit(epochs=1, batch_size=20)(model, rows, recipe, generator=seed(1))
    assert [record["dropped_rows"] for record in history] == [1]
    assert all(weight.isfinite().all() for weight in model.parameters())


class Root(nn.Module):
    def forward(self, x):
        return x.abs().sqrt()


@pytest.mark.parametrize("odd", ODD)
def test_a_row_of_a_stack_moves_its_members_by_no_more(odd):
    """The same for many networks together: without noise, a row more or less."""
    stack = ModelStack(MLP(hidden=(3,)), (4,), 2, [seed(0), seed(1)])
    x = torch.rand(2, 5, 4, generator=seed(2))
    x[:, 2] = odd
    sums = []
    for there in (torch.ones(2, 5), torch.ones(2, 5).index_fill(1, torch.tensor([2]), 0)):
        private_stack_step(
            stack, x, torch.zeros(2, 5).long(), there, norm=NORM, noise=0.0, expected=1.0, generators=[seed(0), seed(1)]
        )
        sums.append(torch.cat([weight.grad.flatten(1) for weight in stack.parameters()], 1))
    assert sums[0].isfinite().all()
    assert ((sums[0] - sums[1]).norm(dim=1) <= NORM * 1.001).all()


@pytest.mark.parametrize("odd", ODD)
def test_a_clients_update_moves_the_sum_by_no_more(odd):
    updates = torch.rand(3, 4, generator=seed(0))
    updates[1] = odd
    cut = ClientLevel(max_update_norm=NORM).clip(updates)
    assert cut.isfinite().all()
    assert (cut.norm(dim=1) <= NORM * 1.001).all()
    assert torch.isfinite(torch.tensor(odd)) or not cut[1].any()
