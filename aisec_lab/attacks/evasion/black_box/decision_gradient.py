"""Estimates of the boundary's normal from decisions: random directions, weighted by the decisions they lead to."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.black_box.decision_search import DecisionSearch
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.core.row_noise import RowNoise

# Of an index into the n rows and a generator of the row: points (m, *input) and their directions (m, *input)
Proposal = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def decision_gradient(search: DecisionSearch, rows: Tensor, propose: Proposal, noise: RowNoise, counter: int) -> Tensor:
    """The sum of random directions, each times +1 if it leads to an adversarial point, and else -1.

    If both occur, the mean sign is subtracted first, as in HopSkipJump (eq. 16): the variance falls, the expectation
    stays.

    Args:
        search: queried about as many points of each row as it has queries left.
        rows: positions (n,) of the rows in the whole batch.
        propose: the points to query, and their directions.
        noise: of these rows.
        counter: of the noise.

    Returns:
        Directions (n, *input); zero for a row without queries.
    """
    v = torch.zeros_like(search.x[rows])
    for i, own in enumerate(noise.generators(counter)):
        points, u = propose(i, own)
        phi = 2 * search.query_many(int(rows[i]), points).to(v.dtype) - 1
        if phi.abs().sum() > phi.sum().abs():  # both signs occur
            phi = phi - phi.mean()
        v[i] = (per_row(phi, u) * u[: len(phi)]).sum(0)
    return v
