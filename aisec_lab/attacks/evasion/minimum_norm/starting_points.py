"""Where a search for the smallest perturbation begins: points that have won, given or found."""

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import SLACK
from aisec_lab.attacks.evasion.geometry.balls import Linf
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormTracker
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, negative_margin
from aisec_lab.core.row_noise import RowNoise

NOISES = 10  # uniform ones that are tried for each row
ASCENT = 50  # steps uphill, each a half of a tenth of the box wide, of rows that no noise has won
STEP = 0.05


def check_start(x: Tensor, start: Tensor) -> None:
    """Refuse what is no starting point for each row.

    Args:
        x: inputs (N, *input).
        start: points to start from.

    Raises:
        ValueError: points of another shape or type than `x`, or outside [0, 1].
    """
    if not isinstance(start, Tensor) or start.shape != x.shape or start.dtype != x.dtype:
        given = f"{start.dtype} {tuple(start.shape)}" if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"start must be one point for each row, {x.dtype} {tuple(x.shape)} as the rows, got {given}")
    if start.numel() and not (start.min() >= -SLACK and start.max() <= 1 + SLACK):
        raise ValueError("start must lie in [0, 1], as the rows do")


def check_adversarial(rows: Tensor, won: Tensor) -> None:
    """Refuse starting points of the rows at positions `rows` that have not won, as a mask over them says."""
    if not won.all():
        lost = rows[~won].tolist()
        raise ValueError(
            f"start must be adversarial for each row, and is not for {len(lost)} of {len(rows)}, such as row "
            f"{lost[0]}: give these another point, or no start at all"
        )


def start_from(model: nn.Module, found: MinimumNormTracker, start: Tensor) -> None:
    """Take note of starting points (N, *input) for the rows that are not won as they are.

    Raises:
        ValueError: what `check_start` and `check_adversarial` refuse.
    """
    check_start(found.x, start)
    rows = (found.distance > 0).nonzero().squeeze(1)
    if len(rows):
        with torch.no_grad():
            check_adversarial(rows, found.update(rows, start[rows], model(start[rows])))


def find_start(model: nn.Module, found: MinimumNormTracker, generator: torch.Generator) -> None:
    """Look for starting points of the rows that have none: uniform noise, and where none has won, uphill from the row.

    Args:
        model: classifier, frozen.
        found: brought up to date.
        generator: source of the noise.
    """
    noise, rows = RowNoise(found.x, generator), found.distance.isinf().nonzero().squeeze(1)
    for number in range(NOISES):
        if not len(rows):
            return
        z = noise.select(rows).uniform(found.x.shape[1:], number)
        with torch.no_grad():
            rows = rows[~found.update(rows, z, model(z))]
    z = found.x[rows]
    for _ in range(ASCENT):
        if not len(rows):
            return
        _, _, grad = loss_and_gradient(model, z, negative_margin(found.goal, found.y[rows]))
        z = (z + STEP * Linf(0).ascent_direction(grad)).clamp(0, 1)
        with torch.no_grad():
            lost = ~found.update(rows, z, model(z))
        rows, z = rows[lost], z[lost]


def bisect_to_boundary(model: nn.Module, found: MinimumNormTracker, times: int) -> None:
    """Draw the points outside the ball near, by bisection along their projections onto ever smaller balls.

    In L2 that is the straight way, in Linf and L1 one that ends at the boundary with a smaller norm.

    Args:
        model: classifier, frozen.
        found: brought up to date.
        times: halvings.
    """
    rows = ((found.distance > found.ball.eps) & found.distance.isfinite()).nonzero().squeeze(1)
    x, delta = found.x[rows], found.x_adv[rows] - found.x[rows]
    high = found.distance[rows].double()
    low = torch.zeros_like(high)
    for _ in range(times if len(rows) else 0):
        middle = (low + high) / 2
        z = x + found.ball.within(x, delta, middle)
        with torch.no_grad():
            won = found.update(rows, z, model(z))
        low, high = torch.where(won, low, middle), torch.where(won, middle, high)
