"""Directions that are estimated from decisions: random ones, each with the sign of the decision behind it."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.black_box.decision_search import DecisionSearch
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.core.row_noise import RowNoise

# For one row in work, by its position and a generator of its own: points (m, *input) and the directions (m, *input)
# that led to them
Explorer = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def decision_gradient(found: DecisionSearch, rows: Tensor, explore: Explorer, noise: RowNoise, counter: int) -> Tensor:
    """The sum of random directions, each with the sign of the decision behind it.

    Where decisions are of both kinds, the directions are taken about their mean sign, as HopSkipJump does (eq. 16):
    this lowers the variance and leaves the expectation.

    Args:
        found: asked about as many points of each row as it has queries left.
        rows: positions of the rows in the whole batch.
        explore: what to ask about each.
        noise: of these rows.
        counter: of the noise.

    Returns:
        Directions (n, *input); zero for a row without queries.
    """
    v = torch.zeros_like(found.x[rows])
    for i, own in enumerate(noise.generators(counter)):
        points, u = explore(i, own)
        phi = 2 * found.query_many(int(rows[i]), points).to(v.dtype) - 1
        if phi.abs().sum() > phi.sum().abs():  # not all of one kind: the mean makes a good baseline
            phi = phi - phi.mean()
        v[i] = (per_row(phi, u) * u[: len(phi)]).sum(0)
    return v
