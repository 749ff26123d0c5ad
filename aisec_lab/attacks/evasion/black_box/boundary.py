"""The Boundary attack: a random walk along the boundary, towards the clean input, on decisions alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs
from aisec_lab.attacks.evasion.black_box.boundary_search import binary_search, interpolate
from aisec_lab.attacks.evasion.black_box.decision_search import DecisionAttackResult, DecisionSearch, starting_points
from aisec_lab.attacks.evasion.geometry.balls import L2, check_ball
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.asked import asked

TRIES = 100  # candidates for a first point
HALVINGS = 10  # on the way from it to the boundary
ADAPT = 1.5  # factor by which steps grow and shrink, to the power of what they miss their share of wins by
SPHERE, STEP = 0.5, 0.25  # shares of wins aimed at: of steps around the clean input, of those that come nearer too
CHECK = 10  # every so many steps the step around the clean input is asked about by itself


@dataclass(frozen=True)
class Boundary:
    """Boundary attack (Brendel et al., 2018, arXiv:1712.04248, algorithm 1): minimum-norm in L2.

    Each step goes around the clean input, a share `delta` of the distance, and then nearer, by a share `epsilon`. Both
    adapt in each row: a win lets them grow, a loss shrink, so that they settle where the wanted shares win.

    Args of the call, returns, raises: as for `HopSkipJump`.
    """

    ball: L2 = L2(0)  # the radius within which a row needs no further search
    queries: int = 5000
    delta: float = 0.01
    epsilon: float = 0.01
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("Boundary", self.ball, L2)
        if self.queries < 2 or not (0 < self.delta < 1 and 0 < self.epsilon < 1):
            raise ValueError(f"queries must be at least 2, delta and epsilon in (0, 1): {self}")

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
        with asked(model), torch.no_grad():
            found = DecisionSearch(model, x, y, self.goal, self.ball, self.queries)
            rows, z = starting_points(found, noise, start, starts, TRIES)
            z = binary_search(found, rows, z, HALVINGS)
            delta, epsilon = torch.full_like(found.distance, self.delta), torch.full_like(found.distance, self.epsilon)
            step = 0
            while True:
                going = found.active(rows)
                rows, z = rows[going], z[going]
                if not len(rows):
                    return found.result()
                eta = noise.select(rows).normal(x.shape[1:], TRIES + step)
                around = self._around(x[rows], z, delta[rows], eta)
                if step % CHECK == 0:
                    delta[rows] *= _adapted(found.query(rows, around), SPHERE)
                nearer = interpolate(self.ball, x[rows], around, 1 - epsilon[rows])
                won = found.query(rows, nearer)
                epsilon[rows] = (epsilon[rows] * _adapted(won, STEP)).clamp(max=0.5)
                z = torch.where(per_row(won, z), nearer, z)
                step += 1

    def _around(self, x: Tensor, z: Tensor, delta: Tensor, eta: Tensor) -> Tensor:
        """From z by a random step of length delta, orthogonal to the way to x, and back onto the sphere around x."""
        distance = self.ball.norm(z - x)
        back = self.ball.ascent_direction(z - x)
        eta = eta - per_row((eta * back).flatten(1).sum(1), x) * back
        eta = self.ball.ascent_direction(eta) * per_row(delta, x)
        return (x + per_row(distance, x) * self.ball.ascent_direction(back + eta)).clamp(0, 1)


def _adapted(won: Tensor, share: float) -> Tensor:
    """A factor that leaves the step where it is, on average, once a share of steps wins."""
    return torch.exp(math.log(ADAPT) * (won.float() - share))
