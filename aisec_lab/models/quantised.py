"""Layers whose weights, and if wanted their inputs, are rounded to few bits."""

from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 255  # steps between the ends of an unsigned byte
TINY = 1e-30  # keeps a row of zeros from dividing by zero


Roundable = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS: dict[int, Any] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the dimensions of their weights


def roundable(layer: nn.Module) -> bool:
    """Whether `Quantised` can stand in its place: it is of that kind, and none that inherits to do something else."""
    kind = next((kind for kind in get_args(Roundable) if isinstance(layer, kind)), None)
    return kind is not None and type(layer).forward is kind.forward


def check_bits(bits: int, block: int | None) -> None:
    """Refuse, with a ValueError, numbers of bits, and of weights that share a step, that cannot be."""
    if not 2 <= bits <= 8 or (block is not None and block < 1):
        raise ValueError(f"bits must be from 2 to 8 and a block at least 1, got {bits} and {block}: try 4 and 32")


class FixedGrid(nn.Module):
    """Inputs as bytes on one fixed grid: scale * (clamp(round(x / scale) + zero, 0, 255) - zero).

    Jacob et al., 2018, arXiv:1712.05877, eq. 1. The gradient passes straight through, and is zero where x is cut off.

    Args:
        low, high: what x went from and to; the grid is stretched so that it holds 0 exactly.
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
        """The nearest points of the grid, of the shape of x."""
        zero = self.zero.to(x)
        codes = ((x / self.scale).round() + zero).clamp(0, LEVELS)
        inside = x.clamp(-zero * self.scale, (LEVELS - zero) * self.scale)
        return inside + (self.scale * (codes - zero) - inside).detach()  # a difference of near numbers is exact


class RowGrid(nn.Module):
    """Inputs as 255 values, steps of a size that each row brings along: its largest magnitude over 127.

    Dettmers et al., 2022, arXiv:2208.07339, section 2. A row is rounded in the same way whatever stands beside it. The
    gradient passes straight through.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The nearest of the row's steps, of the shape of x."""
        largest = x.detach().abs().flatten(1).amax(1).view(-1, *(1,) * (x.ndim - 1))
        scale = largest.clamp(min=TINY) / 127
        return x + (scale * (x / scale).round() - x).detach()


def no_short_cut(_: nn.Module, args: tuple[Tensor]) -> None:
    """Does nothing; but where there is a hook, a transformer's fused pass does not take the weight past `forward`."""


class Quantised(nn.Module):
    """A linear or convolutional layer with weights that are whole numbers of few bits times a step of their channel.

    Krishnamoorthi, 2018, arXiv:1806.08342, section 2.2: symmetric and without a zero point. The layer has no weights
    that could be trained any more.

    Args:
        layer: what is quantised, for which `roundable` holds; it stays as it is.
        bits: from 2 to 8.
        block: how many weights of a channel share a step; None for all of them.
        before, after: modules that round what the layer reads and what it gives.

    Raises:
        ValueError: bits or a block that cannot be.
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
        """The weights that the codes stand for, of the shape that the layer's had."""
        steps = self.scale.repeat_interleave(self.block, 1)[:, : self.codes.shape[1]]
        return (self.codes * steps).view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives with its rounded weights, for inputs of the shape that it took."""
        x = self.before(x)
        if self.convolution is None:
            return self.after(F.linear(x, self.weight, self.bias))
        if self.border is not None:
            x = F.pad(x, **self.border)
        return self.after(CONVOLUTIONS[len(self.shape)](x, self.weight, self.bias, **self.convolution))
