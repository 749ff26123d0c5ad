"""HopSkipJump: down the boundary by gradients that are estimated from decisions alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs
from aisec_lab.attacks.evasion.black_box.boundary_search import binary_search
from aisec_lab.attacks.evasion.black_box.decision_gradient import decision_gradient
from aisec_lab.attacks.evasion.black_box.decision_search import DecisionAttackResult, DecisionSearch, starting_points
from aisec_lab.attacks.evasion.geometry.balls import L2, Ball, Linf, check_ball
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.asked import asked

TRIES = 100  # candidates for a first point
FIRST_DELTA = 0.1  # radius of the first estimate, in widths of the box, as in the authors' code
HALVINGS = 25  # of a step, at most


@dataclass(frozen=True)
class HopSkipJump:
    """HopSkipJump (Chen et al., 2020, arXiv:1904.02144, algorithm 2): minimum-norm in L2 and Linf.

    Args of the call:
        model: classifier in evaluation mode, or an `Oracle`; inputs in [0, 1], shape (N, *input), to scores (N, K),
            of which only the highest is looked at.
        x, y: clean inputs and their true classes (N,), int64; with the goal `Targeted`, the targets.
        generator: source of all noise.
        start: points that have won (N, *input), one for each row, such as another attack's; looked at once.
        starts: instead of it, inputs (M, *input) to choose from, such as some of each target class; a search towards
            a class hardly ever starts from uniform noise, which is what it is given without them.

    Returns:
        The nearest input that has won for each row, inside the box, and the way there (`DecisionAttackResult`). The
        model sees no row more than `queries` times, the clean row included. Rows that are won as they are, and rows for
        which none of 100 starts has won, come back untouched.

    Raises:
        ValueError: another ball, a start that has not won, and what `PGD` refuses.
    """

    ball: Ball = L2(0)  # the norm, and a radius within which a row needs no further search
    queries: int = 5000
    samples: int = 100  # B_0, of the first estimate
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
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
        with asked(model), torch.no_grad():
            found = DecisionSearch(model, x, y, self.goal, self.ball, self.queries)
            rows, z = starting_points(found, noise, start, starts, TRIES)
            z = self._to_boundary(found, rows, z)
            t = 0
            while True:
                going = found.active(rows)
                rows, z = rows[going], z[going]
                if not len(rows):
                    return found.result()
                t += 1
                distance = self.ball.norm(z - x[rows])
                delta = torch.full_like(distance, FIRST_DELTA) if t == 1 else distance / x.shape[1:].numel()
                v = self._gradient(found, rows, z, delta, round(self.samples * math.sqrt(t)), noise.select(rows), t)
                z = self._jump(found, rows, z, v, distance / math.sqrt(t))
                z = self._to_boundary(found, rows, z)

    def _gradient(
        self, found: DecisionSearch, rows: Tensor, z: Tensor, delta: Tensor, samples: int, noise: RowNoise, t: int
    ) -> Tensor:
        """The direction in which points z at the boundary are won, estimated by polling around them (eq. 16)."""

        def around(i: int, own: torch.Generator) -> tuple[Tensor, Tensor]:
            u = torch.randn((samples, *z.shape[1:]), generator=own, dtype=z.dtype, device=z.device)
            points = (z[i] + delta[i] * L2(0).ascent_direction(u)).clamp(0, 1)
            return points, (points - z[i]) / delta[i]

        return self.ball.ascent_direction(decision_gradient(found, rows, around, noise, TRIES + t))

    def _jump(self, found: DecisionSearch, rows: Tensor, z: Tensor, v: Tensor, step: Tensor) -> Tensor:
        """One step along v, halved until it wins; a row whose step never does stays."""
        z = z.clone()
        short = torch.arange(len(rows), device=z.device)  # which have not stepped yet
        for _ in range(HALVINGS):
            short = short[found.queries_left(rows[short]) > 0]
            if not len(short):
                break
            ahead = (z[short] + per_row(step[short], z) * v[short]).clamp(0, 1)
            won = found.query(rows[short], ahead)
            z[short[won]] = ahead[won]
            short = short[~won]
            step = step / 2
        return z

    def _to_boundary(self, found: DecisionSearch, rows: Tensor, z: Tensor) -> Tensor:
        """Section III-C.1: until the share of the way is known to theta, d^(-3/2) in L2 and d^-2 in Linf."""
        power = 1.5 if isinstance(self.ball, L2) else 2
        return binary_search(found, rows, z, math.ceil(power * math.log2(found.x.shape[1:].numel())))
