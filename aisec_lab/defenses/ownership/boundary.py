"""The decision boundary itself as a fingerprint: where it lies between two rows, for exact and near copies."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.fingerprints import Fingerprint, answered, calibrated, drawn
from aisec_lab.models.asked import asked

BISECTIONS = 20  # to a millionth of the way


@dataclass(frozen=True)
class BoundaryFingerprint:
    """Where the model's answer changes on the way from one row to another of a different class.

    The place is found by bisection, as decision-based attacks do (Chen et al., 2020, arXiv:1904.02144, algorithm 1);
    the suspect is then asked for its class at points before and behind it, at several distances: the nearest are
    answered alike by exact copies alone, the farther ones by near copies too, such as a pruned or quantised model.

    Args:
        n: pairs of rows.
        apart: distances of the points from the boundary, shares of the whole way.

    Args of `make`: as for `Fingerprinting`.

    Raises:
        ValueError: fields out of range; what an attack refuses of a model and its inputs; fewer rows than 2 n, or none
            of their pairs with different answers.
    """

    n: int = 100
    apart: tuple[float, ...] = (0.01, 0.03, 0.1)

    def __post_init__(self) -> None:
        if self.n < 1 or not self.apart or not all(0 < share < 1 for share in self.apart):
            raise ValueError(f"n must be positive, apart shares between 0 and 1: {self}")

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """As `Fingerprinting`."""
        check(model, clean.x, clean.y)
        x, towards = drawn(clean, 2 * self.n, generator).tensor_split(2)
        with asked(model), torch.no_grad():
            different = model(x).argmax(1) != model(towards).argmax(1)
        if not different.any():
            raise ValueError("the model answers all pairs of rows alike, no boundary lies between: give other rows")
        x, towards = x[different], towards[different]
        at = crossing(model, x, towards)
        places = torch.stack([at + sign * share for share in self.apart for sign in (-1, 1)]).clamp(0, 1)
        points = [x + per_row(place, x) * (towards - x) for place in places]
        return calibrated(answered(model, torch.cat(points).clamp(0, 1)), references)


@torch.no_grad()
def crossing(model: nn.Module, x: Tensor, towards: Tensor) -> Tensor:
    """How far (N,), in [0, 1], on the way from x to `towards`, (N, *input), the answer stops being that of x."""
    low, high = torch.zeros(2, len(x), dtype=x.dtype, device=x.device)
    high += 1
    with asked(model):
        own = model(x).argmax(1)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            stays = model(x + per_row(middle, x) * (towards - x)).argmax(1) == own
            low, high = torch.where(stays, middle, low), torch.where(stays, high, middle)
    return (low + high) / 2
