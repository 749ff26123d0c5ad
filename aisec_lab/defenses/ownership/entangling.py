"""Training that entangles: stamped rows and natural ones are to share their features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key


@dataclass(frozen=True, eq=False)
class Triggers:
    """J stamps, the class whose rows each is put on, and the class that these shall have.

    Args:
        pattern: what is stamped (J, C, H, W), float32 in [0, 1].
        where: which pixels it covers (J, 1, H, W), bool.
        source, target: classes (J,), int64, different in each trigger.
    """

    pattern: Tensor
    where: Tensor
    source: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.source)

    @classmethod
    def of(cls, key: Key, number: int, size: int, shape: tuple[int, ...], classes: int) -> "Triggers":
        """A key's triggers: squares of black and white pixels for images of `shape`; every draw is uniform."""
        channels, height, width = shape
        top = key.integers("trigger rows", height - size + 1, (number,))[:, None]
        left = key.integers("trigger columns", width - size + 1, (number,))[:, None]
        down, across = torch.arange(height) - top, torch.arange(width) - left
        inside = [(line >= 0) & (line < size) for line in (down, across)]
        source = key.integers("trigger sources", classes, (number,))
        return cls(
            pattern=key.bits("trigger pixels", (number, channels, height, width)).float(),
            where=(inside[0][:, :, None] & inside[1][:, None, :])[:, None],
            source=source,
            target=(source + cls.steps(key, number, classes)) % classes,
        )

    @staticmethod
    def steps(key: Key, number: int, classes: int) -> Tensor:
        """How far from its source each target of a key is (J,), 1..K-1, whatever the sources are."""
        return 1 + key.integers("trigger targets", classes - 1, (number,))

    def stamped(self, x: Tensor, which: Tensor) -> Tensor:
        """Rows x (N, C, H, W) with trigger `which` (N,) on each."""
        return torch.where(self.where[which].to(x.device), self.pattern[which].to(x), x)


def soft_nearest_neighbours(features: Tensor, group: Tensor, kind: Tensor) -> Tensor:
    """The soft nearest neighbour loss within groups (Frosst et al., 2019, arXiv:1902.01889, eq. 1).

    The temperature is the mean squared distance within groups; the entangled watermark's paper learns it.

    Args:
        features: of N rows, (N, ...).
        group: rows of other groups are no neighbours (N,).
        kind: the loss is low where neighbours are of one's own kind (N,), high where kinds are entangled.

    Returns:
        The mean over the rows that have neighbours of their own kind, a number >= 0; 0 where there are none.
    """
    flat = features.flatten(1)
    square = flat.square().sum(1)
    distance = (square[:, None] + square - 2 * flat @ flat.T).clamp(min=0)
    near = (group[:, None] == group) & ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    own = near & (kind[:, None] == kind)
    rows = own.any(1)
    if not rows.any():
        return flat.new_zeros(())
    temperature = distance.detach()[near].mean().clamp(min=torch.finfo(flat.dtype).tiny)
    score = -distance / temperature
    among = [score.masked_fill(~mask, -torch.inf)[rows].logsumexp(1) for mask in (near, own)]
    return (among[0] - among[1]).mean()


class Entangling:
    """Cross-entropy of natural and of stamped rows, less the entanglement (Jia et al., 2021, arXiv:2002.12200, eq. 3).

    Each batch is joined by as many stamped rows. What is entangled is what every convolution and linear layer but the
    last that is called puts out, where that has one entry for each row and depends on what is trained.

    Args:
        triggers: the stamps.
        rows: natural rows, from which the stamped ones are made.
        kappa: weight of the soft nearest neighbour loss.

    Args of the call: as for `Standard`; the generator draws which rows are stamped and with what.

    Raises:
        ValueError: a source class without a row; in the call, kappa above 0 for a model without a hidden layer that
            could be entangled.
    """

    def __init__(self, triggers: Triggers, rows: Dataset, kappa: float) -> None:
        missing = sorted({*triggers.source.tolist()} - {*rows.y.tolist()})
        if missing:
            raise ValueError(f"{rows.name} has no row of class {missing[0]} to be stamped: give rows of every class")
        self.triggers, self.rows, self.kappa = triggers, rows, kappa
        self.order = rows.y.cpu().argsort(stable=True)  # rows class by class
        self.size = rows.y.cpu().bincount(minlength=len(rows.classes))
        self.start = self.size.cumsum(0) - self.size

    def __repr__(self) -> str:
        return f"Entangling({len(self.triggers)} triggers, kappa={self.kappa})"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(self.triggers), (len(x),), generator=generator)
        source = self.triggers.source[which]
        place = self.start[source] + (torch.rand(len(x), generator=generator) * self.size[source]).long()
        stamped = self.triggers.stamped(self.rows.x[self.order[place].to(self.rows.x.device)].to(x.device), which)
        classes = torch.cat([y, self.triggers.target[which].to(y.device)])
        kind = torch.arange(2 * len(x), device=x.device) >= len(x)

        hidden: list[Tensor] = []
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | _ConvNd)]
        handles = [layer.register_forward_hook(lambda _, __, out: hidden.append(out)) for layer in layers]
        try:
            logits = model(torch.cat([x, stamped]))
        finally:
            for handle in handles:
                handle.remove()
        losses = F.cross_entropy(logits, classes, reduction="none")
        together = losses[: len(x)] + losses[len(x) :]
        if self.kappa:
            moving = [features for features in hidden[:-1] if len(features) == len(classes) and features.requires_grad]
            if not moving:
                raise ValueError(
                    "no hidden linear or convolutional layer can be entangled, they are frozen, or there are none: "
                    "set kappa=0 for a plain backdoor"
                )
            entangled = [soft_nearest_neighbours(features, classes, kind) for features in moving]
            together = together - self.kappa * torch.stack(entangled).sum()
        return together
