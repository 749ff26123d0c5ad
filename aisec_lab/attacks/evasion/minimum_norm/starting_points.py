"""Starting points of minimum-norm attacks: adversarial inputs that are given or searched for."""

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import SLACK
from aisec_lab.attacks.evasion.geometry.balls import Linf
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormTracker
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, negative_margin
from aisec_lab.core.row_noise import RowNoise

NOISE_TRIES = 10  # noise points tried for each row
ASCENT_STEPS = 50  # of gradient ascent, for rows without adversarial noise
ASCENT_STEP_SIZE = 0.05


def check_start(x: Tensor, start: Tensor) -> None:
    """Refuse starting points that do not fit the rows.

    Args:
        x: inputs (N, *input).
        start: points to start from.

    Raises:
        ValueError: points of another shape or dtype than `x`, or outside [0, 1].
    """
    if not isinstance(start, Tensor) or start.shape != x.shape or start.dtype != x.dtype:
        given = f"{start.dtype} {tuple(start.shape)}" if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"start must be one point for each row, {x.dtype} {tuple(x.shape)} as the rows, got {given}")
    if start.numel() and not (start.min() >= -SLACK and start.max() <= 1 + SLACK):
        raise ValueError("start must lie in [0, 1], as the rows do")


def check_adversarial(rows: Tensor, is_adv: Tensor) -> None:
    """Refuse, with a ValueError, starting points of `rows` (n,) unless all are adversarial: `is_adv` (n,)."""
    if not is_adv.all():
        failed = rows[~is_adv].tolist()
        raise ValueError(
            f"start must be adversarial for each row, and is not for {len(failed)} of {len(rows)}, such as row "
            f"{failed[0]}: give these another point, or no start at all"
        )


def start_from(model: nn.Module, tracker: MinimumNormTracker, start: Tensor) -> None:
    """Record starting points for the rows that are not misclassified already.

    Args:
        model: classifier, frozen.
        tracker: updated.
        start: points (N, *input).

    Raises:
        ValueError: what `check_start` and `check_adversarial` refuse.
    """
    check_start(tracker.x, start)
    rows = (tracker.distance > 0).nonzero().squeeze(1)
    if len(rows):
        with torch.no_grad():
            check_adversarial(rows, tracker.update(rows, start[rows], model(start[rows])))


def find_start(model: nn.Module, tracker: MinimumNormTracker, generator: torch.Generator) -> None:
    """Search adversarial points for rows without one: uniform noise first, then gradient ascent from x.

    Args:
        model: classifier, frozen.
        tracker: updated.
        generator: source of the noise.
    """
    noise, rows = RowNoise(tracker.x, generator), tracker.distance.isinf().nonzero().squeeze(1)
    for number in range(NOISE_TRIES):
        if not len(rows):
            return
        z = noise.select(rows).uniform(tracker.x.shape[1:], number)
        with torch.no_grad():
            rows = rows[~tracker.update(rows, z, model(z))]
    z = tracker.x[rows]
    for _ in range(ASCENT_STEPS):
        if not len(rows):
            return
        _, _, grad = loss_and_gradient(model, z, negative_margin(tracker.goal, tracker.y[rows]))
        z = (z + ASCENT_STEP_SIZE * Linf(0).ascent_direction(grad)).clamp(0, 1)
        with torch.no_grad():
            not_adv = ~tracker.update(rows, z, model(z))
        rows, z = rows[not_adv], z[not_adv]


def bisect_to_boundary(model: nn.Module, tracker: MinimumNormTracker, times: int) -> None:
    """Move adversarial points outside the ball to the boundary, by bisecting the radius they are projected to.

    In L2 that path is a straight line; in Linf and L1 it ends at the boundary with a smaller norm than the line.

    Args:
        model: classifier, frozen.
        tracker: updated.
        times: halvings.
    """
    rows = ((tracker.distance > tracker.ball.eps) & tracker.distance.isfinite()).nonzero().squeeze(1)
    x, delta = tracker.x[rows], tracker.x_adv[rows] - tracker.x[rows]
    high = tracker.distance[rows].double()
    low = torch.zeros_like(high)
    for _ in range(times if len(rows) else 0):
        middle = (low + high) / 2
        z = x + tracker.ball.project_per_row(x, delta, middle)
        with torch.no_grad():
            is_adv = tracker.update(rows, z, model(z))
        low, high = torch.where(is_adv, low, middle), torch.where(is_adv, middle, high)
