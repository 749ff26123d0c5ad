"""Structured pruning: whole channels are taken out, and a smaller dense network is left."""

from dataclasses import dataclass

import torch
from torch import nn

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.compression.channels import links
from aisec_lab.defenses.compression.magnitude import check_share
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, copied, refuse_computed


@dataclass(frozen=True)
class StructuredPruning:
    """Take out the channels with the smallest filters, train the rest (Li et al., 2017, arXiv:1608.08710, section 3).

    The size of a filter is the sum of its absolute weights; all layers are judged before any is cut. Where channels are
    normalised in groups, whole groups go, so that the others are normalised as before. Layers with numbers for each
    channel are cut too: batch, group and instance norms, `PReLU`, and `Normalised`.

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
        pruned = copied(model)
        found = links(pruned, data.x[:1])
        if not found:
            raise ValueError(f"{type(model).__name__} has no layer that reads another one's channels: nothing to prune")
        sizes = [link.norms() for link in found]
        for link, size in zip(found, sizes, strict=True):
            kept = max(1, round((1 - self.share) * len(size)))
            link.keep(size.argsort(descending=True, stable=True)[:kept].sort().values)
        if self.fit is not None:
            self.fit(pruned, data, self.objective, generator=generator)
        return pruned
