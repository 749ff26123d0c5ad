"""The decision boundary as a fingerprint: where it lies between pairs of rows, for exact and near copies."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.fingerprints import Fingerprint, agreement_with, calibrated, draw_rows
from aisec_lab.models.asked import asked

BISECTIONS = 20  # to a millionth of the segment


@dataclass(frozen=True)
class BoundaryFingerprint:
    """Where the predicted class changes on the segment between two rows of different predicted classes.

    The boundary is found by bisection, as in decision-based attacks (Chen et al., 2020, arXiv:1904.02144, algorithm 1).
    A suspect is then queried at points on both sides of it, at several distances. At the nearest points only exact
    copies predict the same classes; at farther ones near copies do too, such as a pruned or quantised model.

    Call contract: docs/ownership.md, "Fingerprints".

    Args:
        n: number of pairs of rows, at least 1; 2 n rows are needed.
        offsets: distances of the points from the boundary, shares of the segment in (0, 1).

    Raises:
        ValueError: a setting out of range; fewer than 2 n rows, or no pair with different predicted classes.
    """

    n: int = 100
    offsets: tuple[float, ...] = (0.01, 0.03, 0.1)

    def __post_init__(self) -> None:
        if self.n < 1 or not self.offsets or not all(0 < share < 1 for share in self.offsets):
            raise ValueError(f"n must be positive, offsets shares between 0 and 1: {self}")

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """Make the fingerprint; see `Fingerprinting.make`."""
        check(model, clean.x, clean.y)
        x, other = draw_rows(clean, 2 * self.n, generator).tensor_split(2)
        with asked(model), torch.no_grad():
            different = model(x).argmax(1) != model(other).argmax(1)
        if not different.any():
            raise ValueError("the model answers all pairs of rows alike, no boundary lies between: give other rows")
        x, other = x[different], other[different]
        at = crossing(model, x, other)
        places = torch.stack([at + sign * share for share in self.offsets for sign in (-1, 1)]).clamp(0, 1)
        points = [x + per_row(place, x) * (other - x) for place in places]
        return calibrated(agreement_with(model, torch.cat(points).clamp(0, 1)), references)


@torch.no_grad()
def crossing(model: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    """Where the predicted class changes on the segments from x to `other`, (N, *input): (N,), shares in [0, 1]."""
    low, high = torch.zeros(2, len(x), dtype=x.dtype, device=x.device)
    high += 1
    with asked(model):
        own = model(x).argmax(1)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            stays = model(x + per_row(middle, x) * (other - x)).argmax(1) == own
            low, high = torch.where(stays, middle, low), torch.where(stays, high, middle)
    return (low + high) / 2
