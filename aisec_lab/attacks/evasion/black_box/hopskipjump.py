"""HopSkipJump: gradient estimates at the decision boundary, from decisions alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs
from aisec_lab.attacks.evasion.black_box.boundary_search import binary_search
from aisec_lab.attacks.evasion.black_box.decision_gradient import decision_gradient
from aisec_lab.attacks.evasion.black_box.decision_search import DecisionAttackResult, DecisionSearch, starting_points
from aisec_lab.attacks.evasion.black_box.oars import OARS, check_rejection_goal
from aisec_lab.attacks.evasion.geometry.balls import L2, Ball, Linf, check_ball
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.checked import checked_model

TRIES = 100  # candidates for a first point
FIRST_DELTA = 0.1  # radius of the first estimate, in widths of the box, as in the authors' code
HALVINGS = 25  # of a step, at most
WIDEST = 0.25  # of samples with OARS, root mean square of a coordinate


@dataclass(frozen=True)
class HopSkipJump:
    """HopSkipJump (Chen et al., 2020, arXiv:1904.02144, algorithm 2): minimum-norm in L2 and Linf.

    Call contract: docs/evasion-attacks.md, decision attacks with start or starts. Towards a target class, uniform noise
    is hardly ever a starting point: give inputs of that class.

    With `oars`, the radius of all samples is the smallest at which noise around x is hardly rejected; rejected samples
    are drawn anew; a rejected step is left out, and the next estimate is made at the same point; a bisection ends at a
    rejected point.

    Args:
        ball: L2 or Linf; rows adversarial inside its radius leave the search.
        queries: the most queries for each row, at least 2.
        samples: B_0, queries of the first gradient estimate; iteration t takes B_0 sqrt(t).
        goal: what makes a row adversarial.
        oars: adaptation to a model that rejects similar queries; None for an attack that takes a rejection for a
            correct answer.

    Raises:
        ValueError: another ball, settings outside their ranges, a start that is not adversarial, and what the call
            contract lists.
    """

    ball: Ball = L2(0)
    queries: int = 5000
    samples: int = 100
    goal: Goal = Untargeted()
    oars: OARS | None = None

    def __post_init__(self) -> None:
        check_rejection_goal(self.oars, self.goal)
        check_ball("HopSkipJump", self.ball, Linf, L2)
        if self.queries < 2 or self.samples < 1:
            raise ValueError(f"queries must be at least 2 and samples positive: {self}")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator,
        start: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> DecisionAttackResult:
        x = prepare_inputs(model, x, y, generator)
        noise = RowNoise(x, generator)
        with checked_model(model), torch.no_grad():
            search = DecisionSearch(model, x, y, self.goal, self.ball, self.queries, self.oars is not None)
            rows, z = starting_points(search, noise, start, starts, TRIES)
            z = self._to_boundary(search, rows, z)
            radius = self._adapted_radius(search, noise)
            t = 0
            while True:
                active = search.active(rows)
                rows, z = rows[active], z[active]
                if not len(rows):
                    return search.result()
                t += 1
                distance = self.ball.norm(z - x[rows])
                if radius is not None:
                    delta = radius[rows]
                else:
                    delta = torch.full_like(distance, FIRST_DELTA) if t == 1 else distance / x.shape[1:].numel()
                v = self._gradient(search, rows, z, delta, round(self.samples * math.sqrt(t)), noise.select(rows), t)
                z = self._step_along(search, rows, z, v, distance / math.sqrt(t))
                z = self._to_boundary(search, rows, z)

    def _adapted_radius(self, search: DecisionSearch, noise: RowNoise) -> Tensor | None:
        """The radius (N,) of samples that OARS finds, by noise around the rows; None where nothing is rejected."""
        if self.oars is None or not search.sees_rejections:
            return None
        rows, shape = search.active_rows, search.x.shape[1:]
        x, own = search.x[rows], noise.select(rows)

        def rejected(size: Tensor, number: int) -> Tensor:
            u = L2(0).ascent_direction(own.normal(shape, -1 - number))
            search.query(rows, (x + per_row(size, x) * u).clamp(0, 1))
            return search.rejected

        high = x.new_full((len(rows),), WIDEST * math.sqrt(shape.numel()))
        radius = search.distance.clone()
        radius[rows] = self.oars.smallest(torch.zeros_like(high), high, rejected)
        return radius

    def _gradient(
        self, search: DecisionSearch, rows: Tensor, z: Tensor, delta: Tensor, samples: int, noise: RowNoise, t: int
    ) -> Tensor:
        """The direction in which boundary points z become adversarial, estimated from samples (eq. 16)."""

        def sample_around(i: int, own: torch.Generator) -> tuple[Tensor, Tensor]:
            u = torch.randn((samples, *z.shape[1:]), generator=own, dtype=z.dtype, device=z.device)
            points = (z[i] + delta[i] * L2(0).ascent_direction(u)).clamp(0, 1)
            return points, (points - z[i]) / delta[i]

        attempts = 1 if self.oars is None else self.oars.attempts
        return self.ball.ascent_direction(decision_gradient(search, rows, sample_around, noise, TRIES + t, attempts))

    def _step_along(self, search: DecisionSearch, rows: Tensor, z: Tensor, v: Tensor, step: Tensor) -> Tensor:
        """One step along v, halved until the point is adversarial; a row without such a point stays at z."""
        z = z.clone()
        pending = torch.arange(len(rows), device=z.device)  # rows without an adversarial step so far
        for _ in range(HALVINGS):
            pending = pending[search.queries_left(rows[pending]) > 0]
            if not len(pending):
                break
            candidate = (z[pending] + per_row(step[pending], z) * v[pending]).clamp(0, 1)
            is_adv = search.query(rows[pending], candidate)
            z[pending[is_adv]] = candidate[is_adv]
            pending = pending[~is_adv & ~search.rejected]
            step = step / 2
        return z

    def _to_boundary(self, search: DecisionSearch, rows: Tensor, z: Tensor) -> Tensor:
        """Section III-C.1: bisection until the share of the distance is known to theta: d^-1.5 in L2, d^-2 in Linf."""
        power = 1.5 if isinstance(self.ball, L2) else 2
        return binary_search(search, rows, z, math.ceil(power * math.log2(search.x.shape[1:].numel())))
