"""The Boundary attack: a random walk along the decision boundary towards the clean input, on decisions alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs
from aisec_lab.attacks.evasion.black_box.boundary_search import binary_search, interpolate
from aisec_lab.attacks.evasion.black_box.decision_search import DecisionAttackResult, DecisionSearch, starting_points
from aisec_lab.attacks.evasion.black_box.oars import OARS, check_rejection_goal
from aisec_lab.attacks.evasion.geometry.balls import L2, check_ball
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.checked import checked_model

TRIES = 100  # candidates for a first point
HALVINGS = 10  # from it to the boundary
ADAPT = 1.5  # base of the factor by which step sizes adapt
SPHERE_RATE = 0.5  # share of orthogonal steps that shall be adversarial
STEP_RATE = 0.25  # share of steps towards x that shall be adversarial
SPHERE_PERIOD = 10  # steps between two queries of the orthogonal step alone
LONGEST = 1.0  # to which rejections make the orthogonal step grow, a share of the distance to x


@dataclass(frozen=True)
class Boundary:
    """The Boundary attack (Brendel et al., 2018, arXiv:1712.04248, algorithm 1): minimum-norm in L2.

    Each step is orthogonal to the direction of x, of relative length `delta`, and then towards x, of relative length
    `epsilon`. Both adapt in each row to the rate at which steps stay adversarial. Call contract:
    docs/evasion-attacks.md, decision attacks with start or starts.

    With `oars`, both step sizes grow at a rejected point, until steps are long enough; no probes are needed.

    Args:
        ball: L2; rows adversarial inside its radius leave the search.
        queries: the most queries for each row, at least 2.
        delta: first length of the orthogonal step, a share in (0, 1) of the distance to x.
        epsilon: first length of the step towards x, a share in (0, 1) of the distance to x.
        goal: what makes a row adversarial.
        oars: adaptation to a model that rejects similar queries; None for an attack that takes a rejection for a
            correct answer.

    Raises:
        ValueError: another ball, settings outside their ranges, a start that is not adversarial, and what the call
            contract lists.
    """

    ball: L2 = L2(0)
    queries: int = 5000
    delta: float = 0.01
    epsilon: float = 0.01
    goal: Goal = Untargeted()
    oars: OARS | None = None

    def __post_init__(self) -> None:
        check_rejection_goal(self.oars, self.goal)
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
        with checked_model(model), torch.no_grad():
            search = DecisionSearch(model, x, y, self.goal, self.ball, self.queries, self.oars is not None)
            rows, z = starting_points(search, noise, start, starts, TRIES)
            z = binary_search(search, rows, z, HALVINGS)
            delta = torch.full_like(search.distance, self.delta)
            epsilon = torch.full_like(search.distance, self.epsilon)
            step = 0
            while True:
                active = search.active(rows)
                rows, z = rows[active], z[active]
                if not len(rows):
                    return search.result()
                eta = noise.select(rows).normal(x.shape[1:], TRIES + step)
                on_sphere = self._orthogonal_step(x[rows], z, delta[rows], eta)
                if step % SPHERE_PERIOD == 0:
                    delta[rows] *= _step_factor(search.query(rows, on_sphere) | search.rejected, SPHERE_RATE)
                nearer = interpolate(self.ball, x[rows], on_sphere, 1 - epsilon[rows])
                is_adv = search.query(rows, nearer)
                epsilon[rows] = (epsilon[rows] * _step_factor(is_adv | search.rejected, STEP_RATE)).clamp(max=0.5)
                grown = (delta[rows] * ADAPT).clamp(max=LONGEST)
                delta[rows] = torch.where(search.rejected, grown, delta[rows])
                z = torch.where(per_row(is_adv, z), nearer, z)
                step += 1

    def _orthogonal_step(self, x: Tensor, z: Tensor, delta: Tensor, eta: Tensor) -> Tensor:
        """A random step from z of relative length delta (n,), orthogonal to z - x, on the sphere around x."""
        distance = self.ball.norm(z - x)
        direction = self.ball.ascent_direction(z - x)
        eta = eta - per_row((eta * direction).flatten(1).sum(1), x) * direction
        eta = self.ball.ascent_direction(eta) * per_row(delta, x)
        return (x + per_row(distance, x) * self.ball.ascent_direction(direction + eta)).clamp(0, 1)


def _step_factor(is_adv: Tensor, share: float) -> Tensor:
    """Factors (n,) for a step size, which settle once a `share` of steps is adversarial."""
    return torch.exp(math.log(ADAPT) * (is_adv.float() - share))
