"""Extraction of a linear model of two classes from labels alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.attacks.extraction.linear import linear_model
from aisec_lab.attacks.extraction.result import ExtractionResult, check_extraction, published_probabilities
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.asked import asked

ROUGH, FINE = 12, 25  # halvings of a line: enough to know the corners by, and as many as float32 tells apart

Side = Callable[[Tensor], Tensor]  # points (N, d) to whether they are of class 1, (N,)


@dataclass(frozen=True)
class HyperplaneExtraction:
    """Find the hyperplane between two classes by line searches (Lowd & Meek, 2005; Tramèr et al., 2016, section 6).

    Inputs lie in a box here, where a search along one column may find no boundary. So each line runs from a random
    point, usually on a face of the box, to a point of the other class. Bisection finds where it crosses the boundary,
    and least squares fit a hyperplane to all crossings. In a first round the lines end at any point of the other class.
    This gives the two corners of the box farthest from the boundary, at which the lines of the second round end: their
    crossings lie far apart, so that rounding changes the hyperplane little.

    Call contract: docs/extraction-attacks.md. The victim has two classes; only the predicted class is used. The pool is
    queried, in parts, only while all answers are of one class. The attack costs 38 `lines` (d + 1) + 2 queries and
    those of the pool. The surrogate's logits are -f / 2 and f / 2, with f the signed distance from the hyperplane; the
    victim's confidence stays unknown.

    Args:
        lines: for each of the d + 1 unknowns, at least 1; with 2 the system is well conditioned.
        tolerance: largest distance of a crossing from the hyperplane, in units of the [0, 1] input, positive.

    Raises:
        ValueError: settings that are not positive; on a call also another number of classes, one class among all
            answers, or crossings that lie on no hyperplane.
        OutOfQueriesError: the oracle's budget runs out on the way.
    """

    lines: int = 2
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.lines < 1 or not self.tolerance > 0:
            raise ValueError(f"lines must be at least 1 and tolerance positive: {self}")

    def __call__(self, oracle: Oracle, pool: Dataset, *, generator: torch.Generator) -> ExtractionResult:
        rows = pool.x.flatten(1)
        d = rows.shape[1]
        n = self.lines * (d + 1)
        check_extraction(oracle, pool, n * (1 + ROUGH + FINE) + 2)
        before = oracle.queries

        def second(x: Tensor) -> Tensor:
            answers = published_probabilities(oracle, x.to(rows.dtype).unflatten(1, pool.shape))
            if answers.shape[1] != 2:
                raise ValueError(
                    f"HyperplaneExtraction tells two classes apart, the victim has {answers.shape[1]}: take Knockoff"
                )
            return answers.argmax(1) == 1

        with asked(oracle):
            starts = (2 * torch.rand(n, d, generator=generator) - 0.5).clamp(0, 1)
            side = second(starts)
            ends = _one_of_each(second, starts, side, rows)
            normal, _ = _plane(_crossings(second, starts, side, ends, ROUGH), ends)
            corners = torch.stack([normal < 0, normal > 0]).to(rows.dtype)
            as_thought = second(corners) == torch.tensor([False, True])
            ends = torch.where(as_thought[:, None], corners, ends)
            crossings = _crossings(second, starts, side, ends, FINE)
        normal, centre = _plane(crossings, ends)
        off = ((crossings - centre) @ normal).abs().max().item()
        if off > self.tolerance:
            raise ValueError(f"the boundary is {off:.3g} off a hyperplane: the victim is not linear; take Knockoff")
        half, bias = normal / 2, -(centre @ normal) / 2
        return ExtractionResult(
            linear_model(torch.stack([-half, half]), torch.stack([-bias, bias])), oracle.queries - before
        )


def _one_of_each(second: Side, starts: Tensor, side: Tensor, rows: Tensor) -> Tensor:
    """A point of class 0 and one of class 1, (2, d): among the starts, whose side is known, or else among the rows."""
    for batch in rows.split(len(starts)):
        if side.any() and not side.all():
            break
        starts, side = torch.cat([starts, batch]), torch.cat([side, second(batch)])
    if side.all() or not side.any():
        raise ValueError(f"all {len(side)} points that were asked are of class {int(side[0])}: give a pool of both")
    return torch.stack([starts[~side][0], starts[side][0]])


def _crossings(second: Side, starts: Tensor, side: Tensor, ends: Tensor, halvings: int) -> Tensor:
    """Where the lines from the starts to the end of the other class cross the boundary, (n, d), float64."""
    start, way = starts.double(), (ends[(~side).long()] - starts).double()
    low = torch.zeros(len(starts), 1, dtype=torch.float64)  # shares of the way: the last one before, the first beyond
    high = torch.ones_like(low)
    for _ in range(halvings):
        middle = (low + high) / 2
        beyond = (second(start + middle * way) != side)[:, None]
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return (start + (low + high) / 2 * way).to(starts.dtype).double()  # as the victim would be shown it


def _plane(crossings: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The unit normal (d,), pointing to class 1, and the centre (d,) of the hyperplane fitted to crossings."""
    centre = crossings.mean(0)
    normal = torch.linalg.svd(crossings - centre, full_matrices=False).Vh[-1]
    return normal * ((ends[1] - ends[0]).double() @ normal).sign(), centre
