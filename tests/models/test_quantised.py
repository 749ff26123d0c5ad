"""Grids and rounded layers: against torch's own fake quantisation, against rounding one by one, and in gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aisec_lab.models.quantised import FixedGrid, Quantised, RowGrid


def seed(number):
    return torch.Generator().manual_seed(number)


def drawn(*shape, number=0):
    return torch.randn(*shape, generator=seed(number))


@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.9), (0.0, 4.0), (0.7, 3.0), (-3.0, -1.0)])
def test_a_fixed_grid_is_torchs(low, high):
    """Values and gradients of `fake_quantize_per_tensor_affine`, far outside of the grid too; zero stays zero."""
    grid = FixedGrid(low, high)
    least, most = grid(torch.tensor([-1e9, 1e9]))
    x = 3 * drawn(2000)
    x = x[((x - least).abs() > grid.scale) & ((x - most).abs() > grid.scale)]  # at the edge itself torch cuts elsewhere
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = grid(ours)
    expected = torch.fake_quantize_per_tensor_affine(theirs, grid.scale.item(), int(grid.zero), 0, 255)
    assert torch.allclose(found, expected, atol=1e-6)
    (gradient,), (reference,) = torch.autograd.grad(found.sum(), ours), torch.autograd.grad(expected.sum(), theirs)
    assert torch.equal(gradient, reference)
    assert 0 < gradient.sum() < len(x)
    assert grid(torch.zeros(1)) == 0
    assert len(grid(torch.linspace(-9, 9, 9999)).unique()) == 256


@settings(deadline=None)
@given(rows=st.lists(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_row_is_rounded_by_itself(rows):
    """Number by number in 127 steps of its own largest magnitude; a row of zeros stays so."""
    x = torch.tensor(rows)
    found = RowGrid()(x)
    for row, given_ in zip(x.double(), found.double(), strict=True):
        step = max(row.abs().max().item(), 1e-30) / 127
        assert ((given_ - row).abs() <= step * 0.5001 + 1e-9).all()
        assert ((given_ / step - (given_ / step).round()).abs() < 1e-3).all()
    assert torch.equal(RowGrid()(x[:1]), found[:1])


def test_the_gradient_of_a_rounded_row_passes_straight_through():
    x = drawn(4, 2, 3, 3).requires_grad_()
    weights = drawn(4, 2, 3, 3, number=1)
    (gradient,) = torch.autograd.grad((RowGrid()(x) * weights).sum(), x)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_of_a_channel_are_torchs(bits):
    """One step for a channel: `fake_quantize_per_channel_affine` with symmetric ends gives the same weights."""
    for layer in (nn.Linear(20, 6), nn.Conv2d(3, 5, 3, 2, 1)):
        weight = layer.weight.detach()
        most = 2 ** (bits - 1) - 1
        scale = weight.flatten(1).abs().amax(1) / most
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        expected = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -most, most)
        assert torch.allclose(Quantised(layer, bits).weight, expected, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 70), block=st.integers(1, 40), bits=st.integers(2, 8))
def test_weights_in_blocks_are_rounded_block_by_block(width, block, bits):
    """Within half a step of their block, the last of which may be short; the codes fit the bits."""
    layer = nn.Linear(width, 3)
    with torch.no_grad():
        layer.weight.copy_(drawn(3, width, number=width))
        layer.weight[1, : width // 2] = 0
    quantised = Quantised(layer, bits, block)
    assert quantised.codes.abs().max() <= 2 ** (bits - 1) - 1
    for row, found in zip(layer.weight.detach(), quantised.weight, strict=True):
        for part, rounded in zip(row.split(block), found.split(block), strict=True):
            step = part.abs().max() / (2 ** (bits - 1) - 1)
            assert ((part - rounded).abs() <= step * 0.5001).all()
            assert torch.allclose(part.abs().max(), rounded.abs().max())


def test_a_layer_of_many_bits_is_nearly_the_layer():
    """Stride, padding, dilation, groups and bias are the layer's; it has nothing left to train."""
    layers = {
        (4, 12): nn.Linear(12, 5),
        (4, 6, 9, 9): nn.Conv2d(6, 8, 3, 2, 1, 2, groups=2),
        (4, 6, 8, 8): nn.Conv2d(6, 4, 1, bias=False),
    }
    for shape, layer in layers.items():
        quantised, x = Quantised(layer, 8, before=RowGrid()), drawn(*shape)
        assert torch.allclose(quantised(x), layer(x), atol=0.03)
        assert not torch.equal(quantised(x), layer(x))
        assert not list(quantised.parameters())


@pytest.mark.parametrize(("bits", "block"), [(1, None), (9, None), (4, -1)])
def test_what_cannot_be_is_refused(bits, block):
    with pytest.raises(ValueError, match="bits must be from 2 to 8 and a block at least 1"):
        Quantised(nn.Linear(3, 2), bits, block)
