"""Quantised layers: weights, and optionally inputs, rounded to few bits."""

from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 255  # steps between the ends of an unsigned byte
TINY = 1e-30  # keeps a row of zeros from dividing by zero


Roundable = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS: dict[int, Any] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the dimensions of their weights


def roundable(layer: nn.Module) -> bool:
    """Whether `Quantised` can replace a layer: a linear or convolutional layer whose `forward` is not overridden."""
    kind = next((kind for kind in get_args(Roundable) if isinstance(layer, kind)), None)
    return kind is not None and type(layer).forward is kind.forward


def check_bits(bits: int, block: int | None) -> None:
    """Refuse, with a ValueError, bits outside 2..8, or a block (weights that share a scale) below 1."""
    if not 2 <= bits <= 8 or (block is not None and block < 1):
        raise ValueError(f"bits must be from 2 to 8 and a block at least 1, got {bits} and {block}: try 4 and 32")


class FixedGrid(nn.Module):
    """Quantise inputs to bytes on a fixed grid: scale * (clamp(round(x / scale) + zero, 0, 255) - zero).

    Jacob et al., 2018, arXiv:1712.05877, eq. 1. The gradient is straight-through, and zero where x is clamped.

    Args:
        low, high: calibrated range of x; it is extended to contain 0, which the grid holds exactly.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / LEVELS or 1.0
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero", torch.tensor(round(-low / scale), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """The nearest points of the grid, shape of x."""
        zero = self.zero.to(x)
        codes = ((x / self.scale).round() + zero).clamp(0, LEVELS)
        inside = x.clamp(-zero * self.scale, (LEVELS - zero) * self.scale)
        return inside + (self.scale * (codes - zero) - inside).detach()  # a difference of near numbers is exact


class RowGrid(nn.Module):
    """Quantise inputs to 255 values with a scale per row: its largest magnitude over 127.

    Dettmers et al., 2022, arXiv:2208.07339, section 2. The rounding of a row does not depend on other rows. The
    gradient is straight-through.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The nearest points of each row's grid, shape of x."""
        largest = x.detach().abs().flatten(1).amax(1).view(-1, *(1,) * (x.ndim - 1))
        scale = largest.clamp(min=TINY) / 127
        return x + (scale * (x / scale).round() - x).detach()


def no_short_cut(_: nn.Module, args: tuple[Tensor]) -> None:
    """A hook that does nothing; with a hook, a transformer's fused kernel does not bypass `forward`."""


class Quantised(nn.Module):
    """A linear or convolutional layer with integer weights of few bits and a scale per channel or block.

    Symmetric quantisation without a zero point (Krishnamoorthi, 2018, arXiv:1806.08342, section 2.2). The layer has no
    trainable weights.

    Args:
        layer: the layer that is quantised, for which `roundable` holds; it is not changed.
        bits: from 2 to 8.
        block: number of weights of a channel that share a scale, at least 1; None for all of them.
        before, after: modules that quantise the layer's inputs and outputs; None for neither.

    Raises:
        ValueError: bits or block out of its range.
    """

    codes: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(
        self,
        layer: Roundable,
        bits: int,
        block: int | None = None,
        before: nn.Module | None = None,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_bits(bits, block)
        weight = layer.weight.detach()
        channels = weight.flatten(1)  # (out, in), whatever the kernel's shape
        self.bits, self.shape, self.block = bits, weight.shape, block or channels.shape[1]
        blocks = F.pad(channels, (0, -channels.shape[1] % self.block)).view(len(channels), -1, self.block)
        scale = blocks.abs().amax(2, keepdim=True) / (2 ** (bits - 1) - 1)
        scale = torch.where(scale > 0, scale, 1)
        codes = (blocks / scale).round().flatten(1)[:, : channels.shape[1]]
        self.register_buffer("codes", codes.to(torch.int8).contiguous())  # (out, in)
        self.register_buffer("scale", scale.squeeze(2))  # (out, blocks)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.before, self.after = before or nn.Identity(), after or nn.Identity()
        self.register_forward_pre_hook(no_short_cut)
        self.convolution: dict[str, Any] | None = None
        self.border: dict[str, Any] | None = None  # where it is not of zeros
        if not isinstance(layer, nn.Linear):
            self.convolution = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
            if layer.padding_mode != "zeros":
                self.convolution["padding"] = 0
                self.border = {"pad": layer._reversed_padding_repeated_twice, "mode": layer.padding_mode}

    @property
    def weight(self) -> Tensor:
        """The dequantised weights, of the original shape."""
        steps = self.scale.repeat_interleave(self.block, 1)[:, : self.codes.shape[1]]
        return (self.codes * steps).view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output with dequantised weights, for inputs of the original layer's shape."""
        x = self.before(x)
        if self.convolution is None:
            return self.after(F.linear(x, self.weight, self.bias))
        if self.border is not None:
            x = F.pad(x, **self.border)
        return self.after(CONVOLUTIONS[len(self.shape)](x, self.weight, self.bias, **self.convolution))
