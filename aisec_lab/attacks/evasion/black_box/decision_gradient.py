"""Estimates of the boundary's normal from decisions: random directions, weighted by the decisions they lead to."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.black_box.decision_search import DecisionSearch
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.core.row_noise import RowNoise

# Of an index into the n rows and a generator of the row: points (m, *input) and their directions (m, *input)
Proposal = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def decision_gradient(
    search: DecisionSearch, rows: Tensor, propose: Proposal, noise: RowNoise, counter: int, attempts: int = 1
) -> Tensor:
    """The sum of random directions, each times +1 if it leads to an adversarial point, and else -1.

    If both occur, the mean sign is subtracted first, as in HopSkipJump (eq. 16): the variance falls, the expectation
    stays. Rejected points are left out; so many others are drawn in their place.

    Args:
        search: queried about as many points of each row as it has queries left.
        rows: positions (n,) of the rows in the whole batch.
        propose: the points to query, and their directions.
        noise: of these rows.
        counter: of the noise.
        attempts: how often points are drawn, until enough are not rejected.

    Returns:
        Directions (n, *input); zero for a row without queries.
    """
    v = torch.zeros_like(search.x[rows])
    for i, own in enumerate(noise.generators(counter)):
        phi, u = _decisions(search, int(rows[i]), propose, i, own, attempts)
        if phi.abs().sum() > phi.sum().abs():  # both signs occur
            phi = phi - phi.mean()
        v[i] = (per_row(phi, u) * u).sum(0)
    return v


def _decisions(
    search: DecisionSearch, row: int, propose: Proposal, i: int, own: torch.Generator, attempts: int
) -> tuple[Tensor, Tensor]:
    """Signs (m,) and their directions (m, *input), of points that were queried and not rejected."""
    signs, directions, missing = [], [], None
    for _ in range(attempts):
        points, u = propose(i, own)
        is_adv = search.query_many(row, points[:missing])
        answered = ~search.rejected
        signs.append(2 * is_adv[answered].to(u.dtype) - 1)
        directions.append(u[: len(is_adv)][answered])
        missing = (len(points) if missing is None else missing) - len(signs[-1])
        if not missing or not len(is_adv):
            break
    return torch.cat(signs), torch.cat(directions)
