"""Searches for the decision boundary along paths from a clean input, on decisions alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.black_box.decision_search import DecisionSearch
from aisec_lab.attacks.evasion.geometry.balls import Ball, Linf
from aisec_lab.attacks.evasion.geometry.projections import per_row

# Of indices (m,) into the n paths and positions (m,) on them: points (m, *input)
Path = Callable[[Tensor, Tensor], Tensor]

BRACKET_STEPS = 10  # steps of `find_bracket`, at most
FIRST_BRACKET_STEP = 0.01  # length of the first, a share of the guess, as in the code of Sign-OPT's authors


def interpolate(ball: Ball, x: Tensor, z: Tensor, share: Tensor) -> Tensor:
    """Points between inputs and adversarial points.

    Args:
        ball: whose norm measures the distance; in Linf the perturbation is clipped, in other norms it is scaled.
        x: inputs (n, *input).
        z: the other ends, shape of `x`.
        share: shares (n,) in [0, 1] of the distance from x to z.

    Returns:
        Shape of `x`, at that distance from x, and nearest to z among such points.
    """
    delta = z - x
    if isinstance(ball, Linf):
        bound = per_row(share * ball.norm(delta), x)
        delta = delta.clamp(-bound, bound)
    else:
        delta = per_row(share, x) * delta
    return (x + delta).clamp(0, 1)  # against rounding


def ray(x: Tensor, direction: Tensor) -> Path:
    """Straight paths from inputs x (n, *input) along directions of the same shape, clipped to the box."""
    return lambda idx, t: (x[idx] + per_row(t, x) * direction[idx]).clamp(0, 1)


def bisect(search: DecisionSearch, rows: Tensor, path: Path, low: Tensor, high: Tensor, halvings: Tensor) -> Tensor:
    """The positions (n,) on paths where points become adversarial, by bisection.

    Args:
        search: one query for each row and halving.
        rows: positions (n,) of the rows in the whole batch.
        path: of each.
        low: positions (n,) on the paths that are not adversarial.
        high: positions (n,) on the paths that are adversarial.
        halvings: for each row (n,), int64.

    Returns:
        The lowest adversarial positions found, at most `high`. The search ends at a rejected point: what is nearer to
        the points before would be rejected, too.
    """
    low, high, accepted = low.clone(), high.clone(), torch.ones_like(halvings, dtype=torch.bool)
    for done in range(int(halvings.max()) if len(halvings) else 0):
        idx = ((halvings > done) & accepted).nonzero().squeeze(1)
        middle = (low[idx] + high[idx]) / 2
        is_adv = search.query(rows[idx], path(idx, middle))
        low[idx], high[idx] = torch.where(is_adv, low[idx], middle), torch.where(is_adv, middle, high[idx])
        accepted[idx] = ~search.rejected
    return high


def binary_search(search: DecisionSearch, rows: Tensor, z: Tensor, halvings: int) -> Tensor:
    """Move adversarial points towards their rows until they are at the boundary.

    Args:
        search: one query for each row and halving.
        rows: positions (n,) of the rows in the whole batch.
        z: an adversarial point for each (n, *input).
        halvings: their number; the share of the distance is then known to within 2 ** -halvings.

    Returns:
        Adversarial points, shape of `z`.
    """
    x, ones = search.x[rows], z.new_ones(len(rows))

    def path(idx: Tensor, share: Tensor) -> Tensor:
        return interpolate(search.ball, x[idx], z[idx], share)

    share = bisect(search, rows, path, torch.zeros_like(ones), ones, torch.full_like(rows, halvings))
    return interpolate(search.ball, x, z, share)


def find_bracket(
    search: DecisionSearch, rows: Tensor, path: Path, guess: Tensor, *, outward: bool
) -> tuple[Tensor, Tensor]:
    """Positions on both sides of the boundary near a guess, by steps that double.

    Args:
        search: one query for each row at the guess, and one for each step.
        rows: positions (n,) of the rows in the whole batch.
        path: of each; position 0 is the row itself.
        guess: positions (n,) > 0.
        outward: whether to search beyond a guess that is not adversarial, too.

    Returns:
        Positions (n,) that are not adversarial, and positions that are, `inf` where none was found.
    """
    is_adv = search.query(rows, path(torch.arange(len(rows), device=rows.device), guess))
    low, high = torch.where(is_adv, 0.0, guess), torch.where(is_adv, guess, torch.inf)
    idx = (is_adv | outward).nonzero().squeeze(1)
    for number in range(BRACKET_STEPS):
        inward, far = is_adv[idx], FIRST_BRACKET_STEP * 2**number
        idx = idx[search.active(rows[idx]) & (~inward | (far < 1))]
        if not len(idx):
            break
        inward = is_adv[idx]
        t = guess[idx] * torch.where(inward, 1 - far, 1 + far)
        hit = search.query(rows[idx], path(idx, t))
        high[idx] = torch.where(hit, t, high[idx])
        low[idx] = torch.where(hit, low[idx], t)
        idx = idx[hit == inward]
    return low, high


def bisection_steps(low: Tensor, high: Tensor, tolerance: Tensor) -> Tensor:
    """How many halvings (n,), int64, bring low..high (n,) within a tolerance (n,)."""
    return ((high - low) / tolerance).log2().ceil().clamp(min=0).long()
