"""Sign-OPT: the direction in which the boundary is nearest, by the signs of how far it is."""

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

SMOOTHING = 0.001  # the paper's epsilon, beside a direction of norm 1
HALVINGS = 10  # of the radius of a first direction
FINE = 2e-6  # how well radii are known later, as shares of them
GROW, SHRINK, SHORTEST = 2.0, 0.25, 1e-4  # of the step size, as in the authors' code
TRIES = 15  # of a line search


@dataclass(frozen=True)
class SignOPT:
    """Sign-OPT (Cheng et al., 2020, arXiv:1909.10773, algorithm 1): minimum-norm in L2 and Linf.

    It minimises g(theta), the distance of the boundary from x in direction theta. One query tells whether g falls
    along a random direction (eq. 3); the mean of these signs is the way down, with a line search. In Linf the authors'
    code scales each direction to norm 1, which stalls once several coordinates are at the bound; here the direction
    stays in the cube [-1, 1]^D, and a step is the sign of the mean, clipped to the cube.

    Args of the call:
        model: classifier in evaluation mode, or an `Oracle`; inputs in [0, 1], shape (N, *input), to scores (N, K),
            of which only the highest is looked at.
        x, y: clean inputs (N, *input) and their true classes (N,), int64; with the goal `Targeted`, the targets.
        generator: source of all noise.
        starts: inputs (M, *input) to head for at first, such as some of each target class; without them it is
            uniform noise.

    Returns:
        The nearest input that has won for each row, inside the box, and the way there (`DecisionAttackResult`). The
        model sees no row more than `queries` times, the clean row included. Rows that are won as they are, and rows
        for which none of the first directions has won, come back untouched.

    Raises:
        ValueError: another ball, and what `PGD` refuses.
    """

    ball: Ball = L2(0)  # the norm, and a radius within which a row needs no further search
    queries: int = 5000
    directions: int = 100  # of which the nearest is the first
    samples: int = 200  # the paper's Q, directions an estimate
    step_size: float = 0.2  # at first, beside a direction of norm 1
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
            found = DecisionSearch(model, x, y, self.goal, self.ball, self.queries)
            rows, theta, g = self._begin(found, noise, starts)
            alpha = torch.full_like(g, self.step_size)
            t = 0
            while True:
                going = found.active(rows)
                rows, theta, g, alpha = rows[going], theta[going], g[going], alpha[going]
                if not len(rows):
                    return found.result()
                down = self._descent(found, rows, theta, g, noise.select(rows), self.directions + t)
                theta, g, alpha = self._line_search(found, rows, theta, g, alpha, down)
                t += 1

    def _begin(self, found: DecisionSearch, noise: RowNoise, starts: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Of the first directions those of the nearest boundary: rows that have one, directions and radii.

        A row asks about each direction at the radius of its best one; where that wins, it halves the radius's range.
        Every pass asks about one point of each row, wherever it is on this way.
        """
        rows, candidate = found.active_rows, starting_candidates(noise, found.x, starts)
        x = found.x[rows]
        theta, g = torch.zeros_like(x), x.new_full((len(rows),), torch.inf)
        low, tried, halved = torch.zeros_like(g), torch.zeros_like(rows), torch.full_like(rows, HALVINGS)
        while True:
            fresh = halved == HALVINGS
            still = (found.active(rows) & ~(fresh & (tried == self.directions))).nonzero().squeeze(1)
            if not len(still):
                begun = g.isfinite()
                return rows[begun], theta[begun], g[begun]
            fresh = fresh[still]
            way = candidate(rows[still], tried[still]) - x[still]
            most = torch.minimum(self.ball.norm(way), g[still])
            place = torch.where(fresh, most, (low[still] + g[still]) / 2)
            way = torch.where(per_row(fresh, x), self._unit(way), theta[still])
            won = found.query(rows[still], (x[still] + per_row(place, x) * way).clamp(0, 1))
            theta[still[won]], g[still[won]] = way[won], place[won]
            low[still] = torch.where(fresh, 0.0, torch.where(won, low[still], place))
            tried[still] += fresh
            halved[still] = torch.where(fresh, torch.where(won, 0, HALVINGS), halved[still] + 1)

    def _descent(
        self, found: DecisionSearch, rows: Tensor, theta: Tensor, g: Tensor, noise: RowNoise, counter: int
    ) -> Tensor:
        """The direction, of norm 1, in which the radius g falls."""
        x = found.x[rows]

        def around(i: int, own: torch.Generator) -> tuple[Tensor, Tensor]:
            u = torch.randn((self.samples, *x.shape[1:]), generator=own, dtype=x.dtype, device=x.device)
            u = self._unit(u)
            way = theta[i] + SMOOTHING * u
            way = way if isinstance(self.ball, Linf) else self._unit(way)
            return (x[i] + g[i] * way).clamp(0, 1), u

        return self.ball.ascent_direction(decision_gradient(found, rows, around, noise, counter))

    def _line_search(
        self, found: DecisionSearch, rows: Tensor, theta: Tensor, g: Tensor, alpha: Tensor, down: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Steps that double while the radius falls; where the first does not help, steps that shrink until it does.

        Returns:
            Directions, radii, and the step sizes that led to them; the first step size where none did.
        """
        x, theta, g, length = found.x[rows], theta.clone(), g.clone(), alpha
        origin, alpha = theta.clone(), torch.full_like(alpha, self.step_size)
        moved = torch.zeros_like(rows, dtype=torch.bool)
        still = torch.arange(len(rows), device=rows.device)
        for attempt in range(TRIES):
            still = still[found.active(rows[still])]
            if not len(still):
                break
            way = origin[still] + per_row(length[still], x) * down[still]
            way = self._unit(way.clamp(-1, 1) if isinstance(self.ball, Linf) else way)
            radius = _radius(found, rows[still], x[still], way, g[still])
            better, before = radius < g[still], moved[still]
            nearer = still[better]
            theta[nearer], g[nearer], alpha[nearer] = way[better], radius[better], length[nearer]
            moved[nearer] = True
            length = length.clone()
            length[still] *= torch.where(better, GROW, SHRINK)
            on = torch.where(better, before | (attempt == 0), ~before) & (length[still] >= SHORTEST)
            still = still[on]
        return theta, g, alpha

    def _unit(self, way: Tensor) -> Tensor:
        """Directions of norm 1."""
        return normalise_gradient(way) if isinstance(self.ball, Linf) else self.ball.ascent_direction(way)


def _radius(found: DecisionSearch, rows: Tensor, x: Tensor, way: Tensor, most: Tensor) -> Tensor:
    """How far the boundary is from x along directions; `inf` where farther than `most` (n,)."""
    low, radius = find_bracket(found, rows, ray(x, way), most, outward=False)
    near = radius.isfinite().nonzero().squeeze(1)
    low, high = low[near], radius[near]
    radius[near] = bisect(
        found, rows[near], ray(x[near], way[near]), low, high, bisection_steps(low, high, FINE * high)
    )
    return radius
