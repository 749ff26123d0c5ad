"""Ways from an input to points that win, walked on decisions alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.black_box.decision_search import DecisionSearch
from aisec_lab.attacks.evasion.geometry.balls import Ball, Linf
from aisec_lab.attacks.evasion.geometry.projections import per_row

# The points (m, *input) of rows at positions (m,) among those in work, each at its place (m,) of its row's path
Path = Callable[[Tensor, Tensor], Tensor]

LEAPS = 10  # of `find_bracket`, which double
GAP = 0.01  # the first of them, a share of the guess, as in the code of Sign-OPT's authors


def interpolate(ball: Ball, x: Tensor, z: Tensor, share: Tensor) -> Tensor:
    """The nearest points to z (n, *input) at a share (n,) of their distance from x, as the ball measures it."""
    delta = z - x
    if isinstance(ball, Linf):
        reach = per_row(share * ball.norm(delta), x)
        delta = delta.clamp(-reach, reach)
    else:
        delta = per_row(share, x) * delta
    return (x + delta).clamp(0, 1)  # of rounding


def ray(x: Tensor, way: Tensor) -> Path:
    """From inputs x (n, *input) straight along directions of the same shape, up to the faces of the box."""
    return lambda still, place: (x[still] + per_row(place, x) * way[still]).clamp(0, 1)


def bisect(found: DecisionSearch, rows: Tensor, path: Path, low: Tensor, high: Tensor, times: Tensor) -> Tensor:
    """The places (n,) at which paths begin to win, from below.

    Args:
        found: asked once for each row and halving.
        rows: positions of the rows in the whole batch.
        path: of each.
        low, high: places (n,) that do not win and that do.
        times: halvings (n,), int64.

    Returns:
        The lowest places that have won, at most `high`.
    """
    low, high = low.clone(), high.clone()
    for done in range(int(times.max()) if len(times) else 0):
        still = (times > done).nonzero().squeeze(1)
        middle = (low[still] + high[still]) / 2
        won = found.query(rows[still], path(still, middle))
        low[still], high[still] = torch.where(won, low[still], middle), torch.where(won, middle, high[still])
    return high


def binary_search(found: DecisionSearch, rows: Tensor, z: Tensor, times: int) -> Tensor:
    """Pull won points z (n, *input) towards their rows until they stand at the boundary.

    Args:
        found: asked once for each row and halving.
        rows: positions of the rows in the whole batch.
        z: a point for each that has won.
        times: halvings; the share of the distance ends within 2 ** -times of the boundary.

    Returns:
        Points that have won, shape of `z`.
    """
    x, ones = found.x[rows], z.new_ones(len(rows))

    def path(still: Tensor, share: Tensor) -> Tensor:
        return interpolate(found.ball, x[still], z[still], share)

    share = bisect(found, rows, path, torch.zeros_like(ones), ones, torch.full_like(rows, times))
    return interpolate(found.ball, x, z, share)


def find_bracket(
    found: DecisionSearch, rows: Tensor, path: Path, guess: Tensor, *, outward: bool
) -> tuple[Tensor, Tensor]:
    """Places around a guess between which paths begin to win, by leaps that double.

    Args:
        found: asked once for each row about the guess, and once for each leap.
        rows: positions of the rows in the whole batch.
        path: of each; at place 0 stands the row itself.
        guess: places (n,) > 0.
        outward: whether to leap ahead from a guess that does not win, too.

    Returns:
        Places (n,) that do not win, and places that do, `inf` where none was found.
    """
    won = found.query(rows, path(torch.arange(len(rows), device=rows.device), guess))
    low, high = torch.where(won, 0.0, guess), torch.where(won, guess, torch.inf)
    still = (won | outward).nonzero().squeeze(1)
    for leap in range(LEAPS):
        inward, far = won[still], GAP * 2**leap
        still = still[found.active(rows[still]) & (~inward | (far < 1))]
        if not len(still):
            break
        inward = won[still]
        place = guess[still] * torch.where(inward, 1 - far, 1 + far)
        wins = found.query(rows[still], path(still, place))
        high[still] = torch.where(wins, place, high[still])
        low[still] = torch.where(wins, low[still], place)
        still = still[wins == inward]
    return low, high


def bisection_steps(low: Tensor, high: Tensor, tolerance: Tensor) -> Tensor:
    """How often to halve low..high (n,) until they are within a tolerance (n,) of each other: (n,), int64."""
    return ((high - low) / tolerance).log2().ceil().clamp(min=0).long()
