"""FAB, the fast adaptive boundary attack: projections onto the linearised boundary, biased towards the clean input."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import L1, L2, Ball, Linf, check_ball
from aisec_lab.attacks.evasion.geometry.projections import TINY, per_row
from aisec_lab.attacks.evasion.minimum_norm.linearised import Plane, nearest_boundary
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.tracker import FINAL_STEPS, MinimumNormTracker, top_wrong_classes
from aisec_lab.attacks.evasion.search.goals import Untargeted
from aisec_lab.attacks.evasion.search.losses import TargetedMargin
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient

ALPHA_MAX = 0.1  # largest weight of the clean input's projection
ETA = 1.05  # overshoot: length of a step, in units of the distance to the boundary
BETA = 0.9  # adversarial points are moved towards x, to this share of their distance


def fab_steps(
    model: nn.Module, tracker: MinimumNormTracker, steps: int, plane_at: Callable[[Tensor, Tensor], Plane]
) -> None:
    """Run algorithm 1 once on the rows that have no adversarial point inside the ball.

    Args:
        model: classifier, frozen.
        tracker: the nearest points so far; updated.
        steps: the paper's N_iter.
        plane_at: the boundary to step onto, of points z (n, *input) and the positions (n,) of their rows.
    """
    ball, rows = tracker.ball, tracker.active_rows
    z = tracker.x[rows]
    for _ in range(steps):
        if not len(rows):
            return
        origin, plane = tracker.x[rows], plane_at(z, rows)
        height = plane.margin + (plane.slope * (z - origin)).flatten(1).sum(1)  # at origin
        step_origin = ball.step_to_hyperplane(origin, plane.slope, height)
        length = ball.norm(plane.step)
        alpha = per_row((length / (length + ball.norm(step_origin) + TINY)).clamp(max=ALPHA_MAX), z)
        z = ((1 - alpha) * (z + ETA * plane.step) + alpha * (origin + ETA * step_origin)).clamp(0, 1)
        with torch.no_grad():
            is_adv = tracker.update(rows, z, model(z))
        z = torch.where(per_row(is_adv, z), (1 - BETA) * origin + BETA * z, z)
        alive = tracker.active_mask[rows]
        if not alive.all():
            rows, z = rows[alive], z[alive]


def plane_towards(model: nn.Module, ball: Ball, y: Tensor, target: Tensor, z: Tensor, rows: Tensor) -> Plane:
    """The linearised boundary between true and target class, from one forward and one backward pass.

    Args:
        model: classifier, frozen.
        ball: the norm.
        y: true classes of all rows (N,).
        target: target classes of all rows (N,).
        z: points (n, *input).
        rows: positions (n,) of their rows.

    Returns:
        A boundary for each point.
    """
    _, gain, slope = loss_and_gradient(model, z, lambda logits: TargetedMargin()(logits, y[rows], target[rows]))
    return Plane(-gain, slope, ball.step_to_hyperplane(z, slope, -gain))


@dataclass(frozen=True)
class FAB:
    """FAB (Croce & Hein, 2020, arXiv:1907.02044, algorithm 1, without restarts): minimum-norm in Linf, L2 and L1.

    Call contract: docs/evasion-attacks.md, minimum-norm attacks, untargeted.

    Args:
        ball: Linf, L2 or L1; rows adversarial inside its radius leave the search.
        steps: N_iter.
        candidates: number of wrong classes considered, by clean logit from the highest.

    Raises:
        ValueError: another ball, settings not positive, and what the call contract lists.
    """

    ball: Ball = Linf(0)
    steps: int = 100
    candidates: int = 9

    def __post_init__(self) -> None:
        _check_settings(self.ball, self.steps, self.candidates)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            tracker = MinimumNormTracker(model, x, y, Untargeted(), self.ball)
            others = top_wrong_classes(tracker.logits, y, self.candidates)
            fab_steps(
                model,
                tracker,
                self.steps,
                lambda z, rows: nearest_boundary(model, z, y[rows], others[rows], self.ball)[1],
            )
            tracker.regula_falsi(model, FINAL_STEPS)
            return tracker.result(model)


@dataclass(frozen=True)
class TargetedFAB:
    """FAB-T (Croce & Hein, 2020, arXiv:2003.01690): FAB on one wrong class after the other, minimum-norm.

    A row is adversarial in any wrong class, not only the target. A step takes one backward pass, whatever the number of
    classes; few rows are attacked for several targets in one pass. Call contract: docs/evasion-attacks.md, minimum-norm
    attacks, untargeted.

    Args:
        ball: Linf, L2 or L1; rows adversarial inside its radius leave the search.
        steps: N_iter for each target.
        targets: number of wrong classes, by clean logit from the highest.

    Raises:
        ValueError: another ball, settings not positive, and what the call contract lists.
    """

    ball: Ball = Linf(0)
    steps: int = 100
    targets: int = 9

    def __post_init__(self) -> None:
        _check_settings(self.ball, self.steps, self.targets)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            tracker = MinimumNormTracker(model, x, y, Untargeted(), self.ball)
            for copies, target in tracker.per_target(top_wrong_classes(tracker.logits, y, self.targets)):
                fab_steps(model, copies, self.steps, partial(plane_towards, model, self.ball, copies.y, target))
            tracker.regula_falsi(model, FINAL_STEPS)
            return tracker.result(model)


def _check_settings(ball: Ball, steps: int, classes: int) -> None:
    """Refuse balls and settings that FAB does not support."""
    check_ball("FAB", ball, Linf, L2, L1, instead="FMN")
    if steps < 1 or classes < 1:
        raise ValueError(f"steps, and classes looked at, must be positive: {steps}, {classes}")
