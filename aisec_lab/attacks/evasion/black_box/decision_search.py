"""What decision-based attacks share: the nearest adversarial point of each row, its queries, and starting points."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.starting_points import check_adversarial, check_start
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.core.validation import check_output, has_reject_option

BATCH = 128  # points of a pass; larger passes leave the processor's cache and are slower


@dataclass(frozen=True, eq=False)
class DecisionAttackResult(MinimumNormResult):
    """A `MinimumNormResult` with the history of the search; E entries, one for each time that a row's distance fell.

    Args:
        x_adv: see `MinimumNormResult`.
        distance: see `MinimumNormResult`.
        rows: positions (E,) of the rows.
        queries: queries (E,) about the row until then.
        distances: the row's new distances (E,).
    """

    rows: Tensor
    queries: Tensor
    distances: Tensor

    def within(self, queries: int) -> Tensor:
        """Distances (N,) after so many queries for each row, `inf` for rows without an adversarial point by then."""
        soon = self.queries <= queries
        nearest = torch.full_like(self.distance, torch.inf)
        return nearest.scatter_reduce(0, self.rows[soon], self.distances[soon], "amin")


class DecisionSearch:
    """The nearest adversarial point of each row so far, and a count of queries; misclassified rows have distance 0.

    Args:
        model: classifier, frozen; the first call on all rows counts as one query for each.
        x: clean inputs (N, *input).
        y: classes (N,), true or target ones, as the goal needs them.
        goal: what makes a point adversarial.
        ball: the norm, and the radius within which a row leaves the search.
        queries: the most queries for each row.
        sees_rejections: whether the attack tells rejected points from those that are not adversarial.

    Attributes:
        x_adv: the points, shape of `x`.
        distance: their distances (N,), `inf` for rows without one.
        queries_used: queries so far (N,).
        active_rows: positions of the rows that were not adversarial without an attack.
        rejected: which points of the last query (n,) the model rejected; none if the attack does not see it, or the
            model has no reject option.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        goal: Goal,
        ball: Ball,
        queries: int,
        sees_rejections: bool = False,
    ) -> None:
        self.sees_rejections = sees_rejections and has_reject_option(model)
        self.rejected = torch.zeros(0, dtype=torch.bool)
        self.model, self.x, self.y, self.goal, self.ball, self.queries = model, x, y, goal, ball, queries
        logits = model(x)
        check_output(logits, y)
        is_adv = goal.margin(logits, y) < 0
        self.x_adv = x.clone()
        self.distance = torch.where(is_adv, 0.0, torch.inf).to(x.dtype)
        self.queries_used = torch.ones_like(y)
        self.active_rows = (~is_adv).nonzero().squeeze(1)
        self._log = [(is_adv.nonzero().squeeze(1), self.queries_used[is_adv], self.distance[is_adv])]

    def queries_left(self, rows: Tensor) -> Tensor:
        """The remaining queries (n,) of the rows at positions `rows`."""
        return self.queries - self.queries_used[rows]

    def active(self, rows: Tensor) -> Tensor:
        """A mask over `rows`: which have queries left and no adversarial point inside the ball."""
        return (self.queries_left(rows) > 0) & (self.distance[rows] > self.ball.eps)

    def query(self, rows: Tensor, z: Tensor) -> Tensor:
        """Query one point for each row, and record those that are adversarial and nearer.

        Args:
            rows: positions (n,) of the rows.
            z: points (n, *input).

        Returns:
            Which are adversarial (n,). Rows without queries left are not queried, and count as not adversarial.
        """
        allowed = self.queries_left(rows) > 0
        is_adv = torch.zeros_like(allowed)
        rows, z = rows[allowed], z[allowed]
        self.queries_used[rows] += 1
        is_adv[allowed] = new = self._decide(z, self.y[rows])
        self.rejected = torch.zeros_like(allowed).masked_scatter(allowed, self.rejected)
        distance = self.ball.norm(z - self.x[rows])
        nearer = new & (distance < self.distance[rows])
        rows, z, distance = rows[nearer], z[nearer], distance[nearer]
        self.x_adv[rows], self.distance[rows] = z, distance
        self._log.append((rows, self.queries_used[rows], distance))
        return is_adv

    def query_many(self, row: int, z: Tensor) -> Tensor:
        """Query several points for one row, the first ones that its remaining queries allow. None is recorded.

        Args:
            row: its position.
            z: points (m, *input).

        Returns:
            Which are adversarial (at most m,).
        """
        z = z[: self.queries - int(self.queries_used[row])]
        self.queries_used[row] += len(z)
        return self._decide(z, self.y[row].expand(len(z)))

    def result(self) -> DecisionAttackResult:
        """The nearest points, and the history of the search."""
        rows, queries, distances = (torch.cat(part) for part in zip(*self._log, strict=True))
        return DecisionAttackResult(self.x_adv, self.distance, rows, queries, distances)

    def _decide(self, z: Tensor, y: Tensor) -> Tensor:
        """Which points z (m, *input) are adversarial, in passes of at most `BATCH`; `rejected` is of these points."""
        self.rejected = torch.zeros_like(y, dtype=torch.bool)
        if not len(z):  # a forest, for example, accepts no empty batch
            return torch.zeros_like(self.rejected)
        logits = torch.cat([self.model(part) for part in z.split(BATCH)])
        if self.sees_rejections:
            self.rejected = logits.argmax(1) == logits.shape[1] - 1
        return self.goal.margin(logits, y) < 0


def starting_candidates(noise: RowNoise, x: Tensor, starts: Tensor | None) -> Callable[[Tensor, int | Tensor], Tensor]:
    """Candidates for starting points, as a function of positions (n,) and counters.

    Args:
        noise: of the rows.
        x: clean inputs (N, *input).
        starts: inputs (M, *input) to choose from; None for uniform noise.

    Returns:
        A function that gives candidates (n, *input).
    """

    def candidate(rows: Tensor, number: int | Tensor) -> Tensor:
        own = noise.select(rows)
        if starts is None:
            return own.uniform(x.shape[1:], number)
        return starts[own.integers(0, len(starts), (), number)]

    return candidate


def starting_points(
    search: DecisionSearch, noise: RowNoise, start: Tensor | None, starts: Tensor | None, tries: int
) -> tuple[Tensor, Tensor]:
    """An adversarial starting point for each active row: the given one, or the first adversarial candidate.

    Args:
        search: one query for each row and candidate.
        noise: of the rows.
        start: a point for each row (N, *input).
        starts: candidates for any row (M, *input); uniform noise if neither is given.
        tries: most candidates for a row.

    Returns:
        Positions (n,) of the rows that have one, ascending, and their points (n, *input).

    Raises:
        ValueError: both are given; a start that is not adversarial, or is no point of the box.
    """
    if start is None:
        return first_adversarial(search, starting_candidates(noise, search.x, starts), tries)
    if starts is not None:
        raise ValueError("give one start for each row, or starts to choose from, not both")
    check_start(search.x, start)
    rows = search.active_rows
    check_adversarial(rows, search.query(rows, start[rows]))
    return rows, start[rows]


def first_adversarial(
    search: DecisionSearch, candidate: Callable[[Tensor, int | Tensor], Tensor], tries: int
) -> tuple[Tensor, Tensor]:
    """The first adversarial candidate of each active row.

    Args:
        search: one query for each row and candidate.
        candidate: see `starting_candidates`.
        tries: most candidates for a row.

    Returns:
        Positions (n,) of the rows that have one, ascending, and their points (n, *input).
    """
    rows = search.active_rows
    for number in range(tries):
        if not len(rows):
            break
        rows = rows[~search.query(rows, candidate(rows, number))]
    begun = search.active_rows[search.distance[search.active_rows] < torch.inf]
    return begun, search.x_adv[begun]
