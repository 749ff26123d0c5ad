"""GeoDA: the boundary taken to be a plane, its normal estimated from decisions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs
from aisec_lab.attacks.evasion.black_box.basis import Basis, Pixels
from aisec_lab.attacks.evasion.black_box.boundary_search import binary_search, bisect, bisection_steps, find_bracket
from aisec_lab.attacks.evasion.black_box.decision_gradient import decision_gradient
from aisec_lab.attacks.evasion.black_box.decision_search import DecisionAttackResult, DecisionSearch, starting_points
from aisec_lab.attacks.evasion.geometry.balls import L1, L2, Ball, Linf, check_ball
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.asked import asked

TRIES = 100  # candidates for a first point
HALVINGS = 16  # on the way from it to the boundary
SEARCH = 25  # queries kept for the way to the boundary after each estimate, as in the authors' code
NEAR = 0.1  # of sigma: how well the boundary is met, so that the noise around it lands on both sides
GROW = 0.6 ** (-2 / 3)  # of samples from one estimate to the next: the paper's lambda = 0.6 in eq. 19


@dataclass(frozen=True)
class GeoDA:
    """GeoDA (Rahmati et al., 2020, arXiv:2003.06468, algorithm 1): minimum-norm in L2, Linf and L1.

    Noise around a point of the boundary gives its normal; the smallest perturbation against it, in the attack's norm
    and inside the box, leads to the next point. Estimates add up, and each takes more samples than the last (eq. 19).
    In L1 one coordinate after another moves to its face, as in sparse GeoDA (algorithm 2).

    Args of the call:
        model: classifier in evaluation mode, or an `Oracle`; inputs in [0, 1], shape (N, *input), to scores (N, K),
            of which only the highest is looked at.
        x, y: clean inputs (N, *input) and their true classes (N,), int64; with the goal `Targeted`, the targets.
        generator: source of all noise.
        start: points that have won (N, *input), one for each row, such as another attack's; looked at once.
        starts: inputs (M, *input) to start from, such as some of each target class; without them it is uniform noise.

    Returns:
        The nearest input that has won for each row, inside the box, and the way there (`DecisionAttackResult`). The
        model sees no row more than `queries` times, the clean row included. Rows that are won as they are, and rows for
        which none of 100 starts has won, come back untouched.

    Raises:
        ValueError: another ball; the basis `DCT` for inputs that are no images; and what `PGD` refuses.
    """

    ball: Ball = L2(0)  # the norm, and a radius within which a row needs no further search
    queries: int = 4000
    samples: int = 60  # of the first estimate; the last one takes what is left
    sigma: float = 0.0002  # standard deviation of the noise along each direction of the basis
    basis: Basis = Pixels()  # that the normal is looked for in: the paper takes the lowest third of the `DCT`
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("GeoDA", self.ball, Linf, L2, L1)
        if self.queries < 2 or self.samples < 1 or not self.sigma > 0:
            raise ValueError(f"queries must be at least 2, samples and sigma positive: {self}")

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
            normal = torch.zeros_like(z)
            t = 0
            while True:
                going = found.active(rows)
                rows, z, normal = rows[going], z[going], normal[going]
                if not len(rows):
                    return found.result()
                normal += self._estimate(found, rows, z, noise.select(rows), t)
                z = self._to_boundary(found, rows, z, L2(0).ascent_direction(normal))
                t += 1

    def _estimate(self, found: DecisionSearch, rows: Tensor, z: Tensor, noise: RowNoise, t: int) -> Tensor:
        """Along the normal of the boundary at points z, as long as there are samples."""
        now, then = (round(self.samples * GROW**number) for number in (t, t + 1))
        left = found.queries_left(rows)
        rest = torch.maximum(left - SEARCH, (left + 1) // 2)  # all of the last estimate
        samples = torch.where(left < now + then + 2 * SEARCH, rest, now).tolist()

        def around(i: int, own: torch.Generator) -> tuple[Tensor, Tensor]:
            points = (z[i] + self.sigma * self.basis.normal(z, samples[i], own)).clamp(0, 1)
            return points, (points - z[i]) / self.sigma

        return decision_gradient(found, rows, around, noise, TRIES + t)

    def _to_boundary(self, found: DecisionSearch, rows: Tensor, z: Tensor, w: Tensor) -> Tensor:
        """Where the smallest perturbations against planes of normal w meet the boundary; z where they do not."""
        x = found.x[rows]

        def path(still: Tensor, rise: Tensor) -> Tensor:
            return (x[still] + self.ball.crossing(x[still], w[still], rise)).clamp(0, 1)

        guess = ((z - x) * w).flatten(1).sum(1).clamp(min=NEAR * self.sigma)
        low, high = find_bracket(found, rows, path, guess, outward=True)
        met = high.isfinite().nonzero().squeeze(1)
        low, high = low[met], high[met]
        times = bisection_steps(low, high, torch.full_like(high, NEAR * self.sigma))
        high = bisect(found, rows[met], lambda still, rise: path(met[still], rise), low, high, times)
        z = z.clone()
        z[met] = path(met, high)
        return z
