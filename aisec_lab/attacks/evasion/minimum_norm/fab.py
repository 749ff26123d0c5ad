"""The fast adaptive boundary attack: along the boundary, with a bias towards the clean input."""

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

ALPHA_MAX = 0.1  # weight of the clean input's own projection, at most
ETA = 1.05  # how far beyond the boundary each projection goes
BETA = 0.9  # share of the way from the clean input at which the search goes on from a point that has won


def fab_steps(
    model: nn.Module, found: MinimumNormTracker, steps: int, plane_at: Callable[[Tensor, Tensor], Plane]
) -> None:
    """One run of algorithm 1 over the rows for which nothing was found inside the ball.

    Args:
        model: classifier, frozen.
        found: the nearest points so far; brought up to date.
        steps: the paper's N_iter.
        plane_at: of points z (n, *input) and their rows' positions (n,), the boundary to step onto.
    """
    ball, rows = found.ball, found.active_rows
    z = found.x[rows]
    for _ in range(steps):
        if not len(rows):
            return
        origin, plane = found.x[rows], plane_at(z, rows)
        level = plane.lead + (plane.slope * (z - origin)).flatten(1).sum(1)  # from origin
        step_origin = ball.crossing(origin, plane.slope, level)
        length = ball.norm(plane.step)
        alpha = per_row((length / (length + ball.norm(step_origin) + TINY)).clamp(max=ALPHA_MAX), z)
        z = ((1 - alpha) * (z + ETA * plane.step) + alpha * (origin + ETA * step_origin)).clamp(0, 1)
        with torch.no_grad():
            won = found.update(rows, z, model(z))
        z = torch.where(per_row(won, z), (1 - BETA) * origin + BETA * z, z)
        alive = found.active_mask[rows]
        if not alive.all():
            rows, z = rows[alive], z[alive]


def plane_towards(model: nn.Module, ball: Ball, y: Tensor, target: Tensor, z: Tensor, rows: Tensor) -> Plane:
    """The boundary between two classes, at a pass forward and one backward.

    Args:
        model: classifier, frozen.
        ball: the norm.
        y, target: the classes of all rows (N,).
        z: points (n, *input).
        rows: their rows' positions (n,).
    """
    _, gain, slope = loss_and_gradient(model, z, lambda logits: TargetedMargin()(logits, y[rows], target[rows]))
    return Plane(-gain, slope, ball.crossing(z, slope, -gain))


@dataclass(frozen=True)
class FAB:
    """FAB (Croce & Hein, 2020, arXiv:1907.02044, algorithm 1, without restarts): Linf, L2 and L1.

    Args of the call, returns, raises: as for `FMN`.
    """

    ball: Ball = Linf(0)
    steps: int = 100
    candidates: int = 9  # wrong classes looked at, the likeliest

    def __post_init__(self) -> None:
        _refuse(self.ball, self.steps, self.candidates)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            found = MinimumNormTracker(model, x, y, Untargeted(), self.ball)
            others = top_wrong_classes(found.logits, y, self.candidates)
            fab_steps(
                model,
                found,
                self.steps,
                lambda z, rows: nearest_boundary(model, z, y[rows], others[rows], self.ball)[1],
            )
            found.regula_falsi(model, FINAL_STEPS)
            return found.result(model)


@dataclass(frozen=True)
class TargetedFAB:
    """FAB towards the likeliest wrong classes, one after the other (FAB-T of Croce & Hein, 2020, arXiv:2003.01690).

    Args of the call, returns, raises: as for `FMN`. Any wrong class wins, not only the one aimed at; one pass
    backward a step, whatever the number of classes, and where few rows are left, for several targets
    (`BestSoFar.per_target`).
    """

    ball: Ball = Linf(0)
    steps: int = 100
    targets: int = 9

    def __post_init__(self) -> None:
        _refuse(self.ball, self.steps, self.targets)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            found = MinimumNormTracker(model, x, y, Untargeted(), self.ball)
            for several, target in found.per_target(top_wrong_classes(found.logits, y, self.targets)):
                fab_steps(model, several, self.steps, partial(plane_towards, model, self.ball, several.y, target))
            found.regula_falsi(model, FINAL_STEPS)
            return found.result(model)


def _refuse(ball: Ball, steps: int, classes: int) -> None:
    """Refuse settings that FAB cannot have."""
    check_ball("FAB", ball, Linf, L2, L1, instead="FMN")
    if steps < 1 or classes < 1:
        raise ValueError(f"steps, and classes looked at, must be positive: {steps}, {classes}")
