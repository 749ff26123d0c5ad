"""Structured pruning: whole channels are taken out, and a smaller dense network is left."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.door import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.compression.magnitude import check_share
from aisec_lab.defenses.training import Standard
from aisec_lab.models import Fit, Normalised, Objective, refuse_computed
from aisec_lab.models.architectures import Residual
from aisec_lab.models.tempered import TemperedSigmoid

# what does to each channel the same, whatever the others are
CHANNELWISE = (
    Normalised,
    TemperedSigmoid,
    nn.ReLU,
    nn.Flatten,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Dropout,
    nn.Identity,
)


@dataclass(frozen=True, eq=False)
class Link:
    """A layer, the norm behind it if there is one, and the one layer that reads both."""

    writer: nn.Linear | nn.Conv2d
    norm: nn.GroupNorm | None
    reader: nn.Linear | nn.Conv2d

    @property
    def units(self) -> int:
        """How many parts can go without changing the others: channels, or the groups that are normalised together."""
        return len(self.writer.weight) if self.norm is None else self.norm.num_groups

    def norms(self) -> Tensor:
        """The sum of the absolute weights that write each unit, shape (units,)."""
        return self.writer.weight.detach().abs().flatten(1).sum(1).view(self.units, -1).sum(1)

    def keep(self, units: Tensor) -> None:
        """Take all but the given units out of the three layers, in place."""
        channels = torch.arange(len(self.writer.weight), device=units.device).view(self.units, -1)[units].flatten()
        columns = self.reader.weight.detach().view(len(self.reader.weight), len(self.writer.weight), -1)
        if isinstance(self.reader, nn.Conv2d):
            read = columns[:, channels].view(len(columns), len(channels), *self.reader.kernel_size)
            self.reader.in_channels = len(channels)
        else:
            read = columns[:, channels].flatten(1)  # each channel with the inputs that flattening made of it
            self.reader.in_features = read.shape[1]
        self.reader.weight = nn.Parameter(read)
        for layer in (self.writer, self.norm):
            if layer is not None:
                layer.weight = nn.Parameter(layer.weight.detach()[channels])
                layer.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach()[channels])
        if isinstance(self.writer, nn.Conv2d):
            self.writer.out_channels = len(channels)
        else:
            self.writer.out_features = len(channels)
        if self.norm is not None:
            self.norm.num_groups, self.norm.num_channels = len(units), len(channels)


def links(model: nn.Module) -> Iterator[Link]:
    """The places of a network where channels can go: inside of residual blocks, and between layers in a row.

    What a residual block reads and gives has to fit its shortcut, and stays (Li et al., section 3.3).

    Raises:
        ValueError: a network that is no `nn.Sequential` of layers whose channels can be told apart.
    """
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"channels are pruned in an nn.Sequential of the lab's layers, got {type(model).__name__}")
    writer: nn.Linear | nn.Conv2d | None = None
    norm: nn.GroupNorm | None = None
    for layer in model:
        if isinstance(layer, Residual):
            yield from links(layer.residual)
            writer = norm = None
        elif isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
            if writer is not None:
                yield Link(writer, norm, layer)
            writer, norm = layer, None
        elif isinstance(layer, nn.GroupNorm):
            norm = layer
        elif not isinstance(layer, CHANNELWISE):
            raise ValueError(
                f"cannot tell which channels {type(layer).__name__} reads: use MagnitudePruning, which keeps the shape"
            )


@dataclass(frozen=True)
class StructuredPruning:
    """Take out the channels with the smallest filters, train the rest (Li et al., 2017, arXiv:1608.08710, section 3).

    The size of a filter is the sum of its absolute weights; all layers are judged before any is cut. Where channels are
    normalised in groups, whole groups go, so that the others are normalised as before.

    Args:
        share: of the channels of each layer that goes; one channel, or group, always stays.
        fit: the training afterwards; None for pruning alone.
        objective: what that training minimises.

    Args of the call, returns: as for `Compression`; a network of the same kind with narrower layers.

    Raises:
        ValueError: a share that cannot be; a network in which channels cannot be told apart, or none can go; what an
            attack refuses of a model and its inputs.
    """

    share: float = 0.5
    fit: Fit | None = Fit(epochs=10)
    objective: Objective = Standard()

    def __post_init__(self) -> None:
        check_share(self.share, "share")

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check(model, data.x, data.y)
        refuse_computed(model)
        pruned = copy.deepcopy(model)
        found = list(links(pruned))
        if not found:
            raise ValueError(f"{type(model).__name__} has no layer that reads another one's channels: nothing to prune")
        sizes = [link.norms() for link in found]
        for link, size in zip(found, sizes, strict=True):
            kept = max(1, round((1 - self.share) * len(size)))
            link.keep(size.argsort(descending=True, stable=True)[:kept].sort().values)
        if self.fit is not None:
            self.fit(pruned, data, self.objective, generator=generator)
        return pruned
