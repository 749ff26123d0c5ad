"""Structured pruning: whole channels are removed, and the result is a smaller dense network."""

from dataclasses import dataclass

import torch
from torch import nn

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.compression.channels import find_links
from aisec_lab.defenses.compression.magnitude import check_share
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, copied, refuse_computed


@dataclass(frozen=True)
class StructuredPruning:
    """Remove the channels with the smallest filters and fine-tune (Li et al., 2017, arXiv:1608.08710, section 3).

    The size of a filter is its L1 norm; all layers are ranked before any is pruned. Where channels are normalised in
    groups, whole groups are removed, so that the others are normalised as before. Layers with parameters for each
    channel are narrowed too: batch, group and instance norms, `PReLU`, and `Normalised`. Call contract:
    docs/defenses.md, "Compression"; the result has narrower layers. A network whose channels cannot be followed, or
    without a channel to remove, is a ValueError.

    Args:
        share: of the channels of each layer that is removed, in (0, 1); one channel, or group, always stays.
        fit: training loop afterwards; None for pruning alone.
        objective: what fine-tuning minimises.
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
        links = find_links(pruned, data.x[:1])
        if not links:
            raise ValueError(f"{type(model).__name__} has no layer that reads another one's channels: nothing to prune")
        sizes = [link.norms() for link in links]
        for link, size in zip(links, sizes, strict=True):
            kept = max(1, round((1 - self.share) * len(size)))
            link.keep(size.argsort(descending=True, stable=True)[:kept].sort().values)
        if self.fit is not None:
            self.fit(pruned, data, self.objective, generator=generator)
        return pruned
