"""GeoDA: a geometric attack that estimates the normal of the boundary, taken as a plane, from decisions."""

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
HALVINGS = 16  # from it to the boundary
SEARCH = 25  # queries reserved for the search after each estimate, as in the authors' code
TOLERANCE = 0.1  # of boundary points, in units of sigma, so that noise reaches both sides
GROW = 0.6 ** (-2 / 3)  # factor of samples between estimates: lambda = 0.6 in eq. 19


@dataclass(frozen=True)
class GeoDA:
    """GeoDA (Rahmati et al., 2020, arXiv:2003.06468, algorithm 1): minimum-norm in L2, Linf and L1.

    Noise around a boundary point gives the boundary's normal; the smallest perturbation of x along it, in the attack's
    norm and inside the box, leads to the next boundary point. Estimates add up, and each takes more samples than the
    last (eq. 19). In L1 one coordinate after the other moves to its face, as in sparse GeoDA (algorithm 2). Call
    contract: docs/evasion-attacks.md, decision attacks with start or starts.

    Args:
        ball: L2, Linf or L1; rows adversarial inside its radius leave the search.
        queries: the most queries for each row, at least 2.
        samples: queries of the first estimate; the last one takes those that are left.
        sigma: standard deviation of the noise along each direction of the basis.
        basis: subspace in which the normal is searched; the paper takes the lowest frequencies of the `DCT`.
        goal: what makes a row adversarial.

    Raises:
        ValueError: another ball, settings outside their ranges, the basis `DCT` for inputs that are no images, a start
            that is not adversarial, and what the call contract lists.
    """

    ball: Ball = L2(0)
    queries: int = 4000
    samples: int = 60
    sigma: float = 0.0002
    basis: Basis = Pixels()
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
            search = DecisionSearch(model, x, y, self.goal, self.ball, self.queries)
            rows, z = starting_points(search, noise, start, starts, TRIES)
            z = binary_search(search, rows, z, HALVINGS)
            normal = torch.zeros_like(z)
            t = 0
            while True:
                active = search.active(rows)
                rows, z, normal = rows[active], z[active], normal[active]
                if not len(rows):
                    return search.result()
                normal += self._estimate_normal(search, rows, z, noise.select(rows), t)
                z = self._to_boundary(search, rows, z, L2(0).ascent_direction(normal))
                t += 1

    def _estimate_normal(self, search: DecisionSearch, rows: Tensor, z: Tensor, noise: RowNoise, t: int) -> Tensor:
        """The normal of the boundary at points z, not normalised, so that estimates from more samples weigh more."""
        now, then = (round(self.samples * GROW**number) for number in (t, t + 1))
        left = search.queries_left(rows)
        rest = torch.maximum(left - SEARCH, (left + 1) // 2)  # of the last estimate
        samples = torch.where(left < now + then + 2 * SEARCH, rest, now).tolist()

        def sample_around(i: int, own: torch.Generator) -> tuple[Tensor, Tensor]:
            points = (z[i] + self.sigma * self.basis.normal(z, samples[i], own)).clamp(0, 1)
            return points, (points - z[i]) / self.sigma

        return decision_gradient(search, rows, sample_around, noise, TRIES + t)

    def _to_boundary(self, search: DecisionSearch, rows: Tensor, z: Tensor, w: Tensor) -> Tensor:
        """Where the smallest perturbations against planes of normal w meet the boundary; z where they do not."""
        x = search.x[rows]

        def path(idx: Tensor, rise: Tensor) -> Tensor:
            return (x[idx] + self.ball.step_to_hyperplane(x[idx], w[idx], rise)).clamp(0, 1)

        guess = ((z - x) * w).flatten(1).sum(1).clamp(min=TOLERANCE * self.sigma)
        low, high = find_bracket(search, rows, path, guess, outward=True)
        met = high.isfinite().nonzero().squeeze(1)
        low, high = low[met], high[met]
        times = bisection_steps(low, high, torch.full_like(high, TOLERANCE * self.sigma))
        high = bisect(search, rows[met], lambda idx, rise: path(met[idx], rise), low, high, times)
        z = z.clone()
        z[met] = path(met, high)
        return z
