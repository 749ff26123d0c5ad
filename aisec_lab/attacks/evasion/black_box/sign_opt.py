"""Sign-OPT: minimises the distance to the boundary over directions, by the signs of its directional derivatives."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs
from aisec_lab.attacks.evasion.black_box.boundary_search import bisect, bisection_steps, find_bracket, ray
from aisec_lab.attacks.evasion.black_box.decision_gradient import decision_gradient
from aisec_lab.attacks.evasion.black_box.decision_search import (
    DecisionAttackResult,
    DecisionSearch,
    starting_candidates,
)
from aisec_lab.attacks.evasion.geometry.balls import L2, Ball, Linf, check_ball
from aisec_lab.attacks.evasion.geometry.projections import normalise_gradient, per_row
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.asked import asked

SMOOTHING = 0.001  # the paper's epsilon, added along a direction of norm 1
HALVINGS = 10  # of the radius of a first direction
TOLERANCE = 2e-6  # relative tolerance of later radii
GROW, SHRINK, SHORTEST = 2.0, 0.25, 1e-4  # of the step size, as in the authors' code
TRIES = 15  # of a line search


@dataclass(frozen=True)
class SignOPT:
    """Sign-OPT (Cheng et al., 2020, arXiv:1909.10773, algorithm 1): minimum-norm in L2 and Linf.

    It minimises g(theta), the distance from x to the boundary in direction theta. One query tells whether g falls along
    a random direction (eq. 3); the mean of these signs is the descent direction of a line search. In Linf the authors'
    code scales each direction to norm 1, which stalls once several coordinates are at the bound; here directions stay
    in the cube [-1, 1]^D, and a step is the sign of the mean, clipped to the cube. Call contract:
    docs/evasion-attacks.md, decision attacks with starts.

    Args:
        ball: L2 or Linf; rows adversarial inside its radius leave the search.
        queries: the most queries for each row, at least 2.
        directions: first directions, the nearest of which begins.
        samples: the paper's Q, queries of a gradient estimate.
        step_size: first step size of the line search, beside a direction of norm 1.
        goal: what makes a row adversarial.

    Raises:
        ValueError: another ball, settings outside their ranges, and what the call contract lists.
    """

    ball: Ball = L2(0)
    queries: int = 5000
    directions: int = 100
    samples: int = 200
    step_size: float = 0.2
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("SignOPT", self.ball, Linf, L2)
        if min(self.queries - 1, self.directions, self.samples) < 1 or not self.step_size > 0:
            raise ValueError(f"queries must be at least 2, directions, samples and step_size positive: {self}")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator, starts: Tensor | None = None
    ) -> DecisionAttackResult:
        x = prepare_inputs(model, x, y, generator)
        noise = RowNoise(x, generator)
        with asked(model), torch.no_grad():
            search = DecisionSearch(model, x, y, self.goal, self.ball, self.queries)
            rows, theta, g = self._initial_directions(search, noise, starts)
            alpha = torch.full_like(g, self.step_size)
            t = 0
            while True:
                active = search.active(rows)
                rows, theta, g, alpha = rows[active], theta[active], g[active], alpha[active]
                if not len(rows):
                    return search.result()
                descent = self._descent_direction(search, rows, theta, g, noise.select(rows), self.directions + t)
                theta, g, alpha = self._line_search(search, rows, theta, g, alpha, descent)
                t += 1

    def _initial_directions(
        self, search: DecisionSearch, noise: RowNoise, starts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first direction of nearest boundary: rows that have one, directions theta, and radii g(theta).

        Each direction is queried at the row's smallest radius so far; if it is adversarial there, the radius is
        bisected. Each pass queries one point of each row, whichever of these stages the row is at.
        """
        rows, candidate = search.active_rows, starting_candidates(noise, search.x, starts)
        x = search.x[rows]
        theta, g = torch.zeros_like(x), x.new_full((len(rows),), torch.inf)
        low, tried, halved = torch.zeros_like(g), torch.zeros_like(rows), torch.full_like(rows, HALVINGS)
        while True:
            fresh = halved == HALVINGS
            idx = (search.active(rows) & ~(fresh & (tried == self.directions))).nonzero().squeeze(1)
            if not len(idx):
                has_start = g.isfinite()
                return rows[has_start], theta[has_start], g[has_start]
            fresh = fresh[idx]
            direction = candidate(rows[idx], tried[idx]) - x[idx]
            max_radius = torch.minimum(self.ball.norm(direction), g[idx])
            radius = torch.where(fresh, max_radius, (low[idx] + g[idx]) / 2)
            direction = torch.where(per_row(fresh, x), self._unit(direction), theta[idx])
            is_adv = search.query(rows[idx], (x[idx] + per_row(radius, x) * direction).clamp(0, 1))
            theta[idx[is_adv]], g[idx[is_adv]] = direction[is_adv], radius[is_adv]
            low[idx] = torch.where(fresh, 0.0, torch.where(is_adv, low[idx], radius))
            tried[idx] += fresh
            halved[idx] = torch.where(fresh, torch.where(is_adv, 0, HALVINGS), halved[idx] + 1)

    def _descent_direction(
        self, search: DecisionSearch, rows: Tensor, theta: Tensor, g: Tensor, noise: RowNoise, counter: int
    ) -> Tensor:
        """The direction, of norm 1, in which the radius g falls."""
        x = search.x[rows]

        def sample_around(i: int, own: torch.Generator) -> tuple[Tensor, Tensor]:
            u = torch.randn((self.samples, *x.shape[1:]), generator=own, dtype=x.dtype, device=x.device)
            u = self._unit(u)
            direction = theta[i] + SMOOTHING * u
            direction = direction if isinstance(self.ball, Linf) else self._unit(direction)
            return (x[i] + g[i] * direction).clamp(0, 1), u

        return self.ball.ascent_direction(decision_gradient(search, rows, sample_around, noise, counter))

    def _line_search(
        self, search: DecisionSearch, rows: Tensor, theta: Tensor, g: Tensor, alpha: Tensor, descent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Steps that double while the radius falls; if the first step does not help, steps that shrink until one does.

        Returns:
            Directions, radii, and the step sizes that led to them; the first step size where none did.
        """
        x, theta, g, length = search.x[rows], theta.clone(), g.clone(), alpha
        origin, alpha = theta.clone(), torch.full_like(alpha, self.step_size)
        moved = torch.zeros_like(rows, dtype=torch.bool)
        idx = torch.arange(len(rows), device=rows.device)
        for attempt in range(TRIES):
            idx = idx[search.active(rows[idx])]
            if not len(idx):
                break
            direction = origin[idx] + per_row(length[idx], x) * descent[idx]
            direction = self._unit(direction.clamp(-1, 1) if isinstance(self.ball, Linf) else direction)
            radius = _radius(search, rows[idx], x[idx], direction, g[idx])
            better, before = radius < g[idx], moved[idx]
            nearer = idx[better]
            theta[nearer], g[nearer], alpha[nearer] = direction[better], radius[better], length[nearer]
            moved[nearer] = True
            length = length.clone()
            length[idx] *= torch.where(better, GROW, SHRINK)
            go_on = torch.where(better, before | (attempt == 0), ~before) & (length[idx] >= SHORTEST)
            idx = idx[go_on]
        return theta, g, alpha

    def _unit(self, direction: Tensor) -> Tensor:
        """Scale directions to norm 1."""
        return normalise_gradient(direction) if isinstance(self.ball, Linf) else self.ball.ascent_direction(direction)


def _radius(search: DecisionSearch, rows: Tensor, x: Tensor, direction: Tensor, max_radius: Tensor) -> Tensor:
    """The distance (n,) from x to the boundary along directions; `inf` if above `max_radius` (n,)."""
    low, radius = find_bracket(search, rows, ray(x, direction), max_radius, outward=False)
    met = radius.isfinite().nonzero().squeeze(1)
    low, high = low[met], radius[met]
    radius[met] = bisect(
        search, rows[met], ray(x[met], direction[met]), low, high, bisection_steps(low, high, TOLERANCE * high)
    )
    return radius
