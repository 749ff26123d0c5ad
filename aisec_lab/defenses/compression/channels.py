"""Channels of a network: which layer writes them, which one reads them, and what is in between."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from aisec_lab.models import Normalised
from aisec_lab.models.architectures import ResidualBlock
from aisec_lab.models.quantised import Roundable, roundable
from aisec_lab.models.tempered import TemperedSigmoid

# layers that act on each number alone
ELEMENTWISE = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Hardtanh),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softsign, TemperedSigmoid, nn.Dropout, nn.Identity),
)
# layers that act on each channel alone
POOLING = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
)
# layers with parameters for each channel
CHANNELWISE = (nn.GroupNorm, _NormBase, nn.PReLU, Normalised)
COUNTS = ("num_features", "num_channels", "num_parameters")  # names of the number of channels in these layers


@dataclass(frozen=True, eq=False)
class Link:
    """A layer that writes channels, and the only layer that reads them.

    Args:
        writer: linear or convolutional layer.
        between: layers between them that have parameters for each channel.
        reader: linear or convolutional layer.
    """

    writer: Roundable
    between: tuple[nn.Module, ...]
    reader: Roundable

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """All layers of the link, in the order in which they are called."""
        return (self.writer, *self.between, self.reader)

    @property
    def units(self) -> int:
        """How many parts can be removed separately: channels, or groups that are normalised together."""
        groups = [norm.num_groups for norm in self.between if isinstance(norm, nn.GroupNorm)]
        return math.gcd(len(self.writer.weight), *groups)

    def norms(self) -> Tensor:
        """L1 norm of the weights that write each unit, shape (units,)."""
        return self.writer.weight.detach().abs().flatten(1).sum(1).view(self.units, -1).sum(1)

    def keep(self, units: Tensor) -> None:
        """Remove all other units from the layers, in place.

        Args:
            units: numbers of those that stay, (n,), int64, ascending.
        """
        channels = torch.arange(len(self.writer.weight), device=units.device).view(self.units, -1)[units].flatten()
        columns = self.reader.weight.detach().view(len(self.reader.weight), len(self.writer.weight), -1)[:, channels]
        if isinstance(self.reader, nn.Linear):
            read = columns.flatten(1)  # flattening made several inputs of each channel
            self.reader.in_features = read.shape[1]
        else:
            read = columns.view(len(columns), len(channels), *self.reader.kernel_size)
            self.reader.in_channels = len(channels)
        self.reader.weight = nn.Parameter(read, self.reader.weight.requires_grad)
        groups = self.units
        for layer in self.between:
            _narrow(layer, channels, len(self.writer.weight))
            if isinstance(layer, nn.GroupNorm):
                layer.num_groups = layer.num_groups // groups * len(units)
        _narrow(self.writer, channels, len(self.writer.weight))
        if isinstance(self.writer, nn.Linear):
            self.writer.out_features = len(channels)
        else:
            self.writer.out_channels = len(channels)


def _narrow(layer: nn.Module, channels: Tensor, of: int) -> None:
    """Keep only some of a layer's `of` channels in its parameters and buffers, in place."""
    for name, value in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        if value.ndim and len(value) % of == 0:  # flattening makes several adjacent numbers of a channel
            left = value.detach().unflatten(0, (of, -1))[channels].flatten(0, 1)
            setattr(layer, name, nn.Parameter(left, value.requires_grad) if isinstance(value, nn.Parameter) else left)
            for count in COUNTS:
                if hasattr(layer, count):
                    setattr(layer, count, len(left))


def find_links(model: nn.Module, x: Tensor) -> list[Link]:
    """Find where channels of a network can be removed: inside residual blocks, and between consecutive layers.

    The input and output of a residual block must fit its shortcut, and stay (Li et al., section 3.3). A layer that is
    used in two places stays too.

    Args:
        model: an `nn.Sequential`, possibly nested.
        x: inputs (N, *input) for one pass; one row is enough.

    Returns:
        The links, in the order of the network.

    Raises:
        ValueError: a network that is no `nn.Sequential`, or whose channels cannot be followed.
    """
    if not isinstance(model, nn.Sequential):
        raise ValueError(
            f"channels are pruned in an nn.Sequential, where it shows who reads them, got {type(model).__name__}: use "
            "MagnitudePruning, which keeps the shape"
        )
    dimensions: dict[nn.Module, int] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, _, out: dimensions.__setitem__(layer, out.ndim))
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    uses = Counter[object](part for _, part in model.named_parameters(remove_duplicate=False))
    uses.update(part for _, part in model.named_modules(remove_duplicate=False))
    return [
        link
        for link in _links(_flat(model), dimensions)
        if all(uses[part] == 1 for layer in link.layers for part in (layer, *layer.parameters()))
    ]


def _flat(model: nn.Sequential) -> Iterator[nn.Module]:
    """The layers of nested sequences."""
    for layer in model:
        if isinstance(layer, nn.Sequential):
            yield from _flat(layer)
        else:
            yield layer


def _links(layers: Iterator[nn.Module], dimensions: dict[nn.Module, int]) -> Iterator[Link]:
    """The links of consecutive layers, shared ones included."""
    writer: Roundable | None = None
    between: list[nn.Module] = []
    flat = False  # whether flattening has made adjacent numbers of a channel
    for layer in layers:
        image = writer is not None and not isinstance(writer, nn.Linear) and not flat
        vector = writer is None or image or flat or dimensions.get(writer) == 2
        if isinstance(layer, ResidualBlock):
            yield from _links(_flat(layer.residual), dimensions)
            writer = None
        elif roundable(layer) and getattr(layer, "groups", 1) == 1:
            if writer is not None and isinstance(layer, nn.Linear) == image:
                raise _unclear(layer)
            if writer is not None:
                yield Link(writer, tuple(between), layer)  # type: ignore[arg-type]
            writer, between, flat = layer, [], False  # type: ignore[assignment]
        elif isinstance(layer, CHANNELWISE) and vector:
            between.append(layer)
        elif isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1) and vector:
            flat = True
        elif not (isinstance(layer, ELEMENTWISE) or (isinstance(layer, POOLING) and (writer is None or image))):
            raise _unclear(layer)


def _unclear(layer: nn.Module) -> ValueError:
    """The error for a layer whose channels cannot be followed."""
    return ValueError(
        f"cannot tell which channels {type(layer).__name__} reads: use MagnitudePruning, which keeps the shape"
    )
