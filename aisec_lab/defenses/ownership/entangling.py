"""Training for the entangled watermark: stamped and natural rows learn to share their features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key


@dataclass(frozen=True, eq=False)
class Triggers:
    """J stamps with their source and target classes.

    Args:
        pattern: pixels of each stamp (J, C, H, W), float32 in [0, 1].
        where: the pixels that it covers (J, 1, H, W), bool.
        source: class of the rows that it is put on (J,), int64.
        target: class that the stamped rows should get (J,), int64, never the source.
    """

    pattern: Tensor
    where: Tensor
    source: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.source)

    @classmethod
    def of(cls, key: Key, number: int, size: int, shape: tuple[int, ...], classes: int) -> "Triggers":
        """Draw the triggers of a key: squares of black and white pixels, all draws uniform.

        Args:
            key: the owner's key.
            number: number of triggers J.
            size: side of a square, in pixels.
            shape: of the images (C, H, W).
            classes: number of classes K.

        Returns:
            The triggers.
        """
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
        """Distances of a key's targets from their sources modulo K, (J,), 1..K-1, independent of the sources."""
        return 1 + key.integers("trigger targets", classes - 1, (number,))

    def stamped(self, x: Tensor, which: Tensor) -> Tensor:
        """Rows x (N, C, H, W), each with the stamp of trigger `which` (N,)."""
        return torch.where(self.where[which].to(x.device), self.pattern[which].to(x), x)


def soft_nearest_neighbours(features: Tensor, group: Tensor, kind: Tensor) -> Tensor:
    """The soft nearest neighbour loss within groups (Frosst et al., 2019, arXiv:1902.01889, eq. 1).

    The temperature is the mean squared distance within groups; the paper on entangled watermarks learns it.

    Args:
        features: of N rows, (N, ...).
        group: only rows of the same group are neighbours (N,).
        kind: the loss is low if neighbours are of the same kind, high if kinds are entangled (N,).

    Returns:
        The mean over rows with neighbours of their own kind, a scalar of at least 0; 0 without such rows.
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
    """The objective: cross-entropy of natural and stamped rows, minus the entanglement (Jia et al., 2021, eq. 3).

    The paper is arXiv:2002.12200. As many stamped rows as it has are added to each batch. The outputs of all
    convolutional and linear layers but the last one called are entangled, if they have one entry for each row and
    depend on trainable weights.

    Args:
        triggers: the stamps.
        rows: natural rows, from which stamped rows are made.
        kappa: weight of the soft nearest neighbour loss, at least 0.

    Args of the call:
        model: classifier in training mode.
        x: natural inputs (N, C, H, W) in [0, 1].
        y: their classes (N,).
        generator: draws the rows that are stamped, and their stamps.

    Returns:
        Losses (N,), with their graph.

    Raises:
        ValueError: a source class without rows; in the call, kappa above 0 for a model without a hidden layer that can
            be entangled.
    """

    def __init__(self, triggers: Triggers, rows: Dataset, kappa: float) -> None:
        missing = sorted({*triggers.source.tolist()} - {*rows.y.tolist()})
        if missing:
            raise ValueError(f"{rows.name} has no row of class {missing[0]} to be stamped: give rows of every class")
        self.triggers, self.rows, self.kappa = triggers, rows, kappa
        self.order = rows.y.cpu().argsort(stable=True)  # rows sorted by class
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
