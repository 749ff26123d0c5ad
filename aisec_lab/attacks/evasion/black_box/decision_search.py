"""What every search that sees only decisions keeps: the nearest point won of each row, and its queries, counted."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check_answer
from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.starting_points import check_adversarial, check_start
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.core.row_noise import RowNoise

BATCH = 128  # points a pass: with many more, a pass leaves the processor's cache and takes longer for each


@dataclass(frozen=True, eq=False)
class DecisionAttackResult(MinimumNormResult):
    """As `MinimumNormResult`, with the way there.

    Args:
        rows, queries, distances: one entry (E,) each for every time that a row came nearer: which row, after how
            many queries about it, and how near.
    """

    rows: Tensor
    queries: Tensor
    distances: Tensor

    def within(self, queries: int) -> Tensor:
        """Distances (N,) found with so many queries a row, `inf` for none: a point of the curve against queries."""
        soon = self.queries <= queries
        nearest = torch.full_like(self.distance, torch.inf)
        return nearest.scatter_reduce(0, self.rows[soon], self.distances[soon], "amin")


class DecisionSearch:
    """The nearest point of each row that has won so far, beginning with the rows that are won as they are.

    Args:
        model: classifier, frozen; asked once about all rows, which counts.
        x: clean inputs (N, *input).
        y: classes (N,), true or target ones, as the goal has it.
        goal: when a point has won.
        ball: the norm, and the radius within which a row needs no further search.
        queries: how often the model may be asked about each row.

    Attributes:
        spent: queries so far, (N,).
        unsolved: positions of the rows that are not won as they are.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal, ball: Ball, queries: int) -> None:
        self.model, self.x, self.y, self.goal, self.ball, self.queries = model, x, y, goal, ball, queries
        logits = model(x)
        check_answer(logits, y)
        won = goal.margin(logits, y) < 0
        self.x_adv = x.clone()
        self.distance = torch.where(won, 0.0, torch.inf).to(x.dtype)
        self.queries_used = torch.ones_like(y)
        self.active_rows = (~won).nonzero().squeeze(1)
        self._log = [(won.nonzero().squeeze(1), self.queries_used[won], self.distance[won])]

    def queries_left(self, rows: Tensor) -> Tensor:
        """How many queries are left to the rows at positions `rows`."""
        return self.queries - self.queries_used[rows]

    def active(self, rows: Tensor) -> Tensor:
        """A mask over `rows`: which have queries left and stand outside the ball."""
        return (self.queries_left(rows) > 0) & (self.distance[rows] > self.ball.eps)

    def query(self, rows: Tensor, z: Tensor) -> Tensor:
        """Ask about one point z (n, *input) for each of `rows`, and remember those that win and are nearer.

        Returns:
            Which have won (n,): none of those whose queries are used up, about which nothing is asked.
        """
        asked = self.queries_left(rows) > 0
        won = torch.zeros_like(asked)
        rows, z = rows[asked], z[asked]
        self.queries_used[rows] += 1
        won[asked] = new = self._decide(z, self.y[rows])
        distance = self.ball.norm(z - self.x[rows])
        nearer = new & (distance < self.distance[rows])
        rows, z, distance = rows[nearer], z[nearer], distance[nearer]
        self.x_adv[rows], self.distance[rows] = z, distance
        self._log.append((rows, self.queries_used[rows], distance))
        return won

    def query_many(self, row: int, z: Tensor) -> Tensor:
        """Ask about the points z (m, *input), all for one row: as many, of the first, as it has queries left.

        Returns:
            Which of them have won (at most m,). None is remembered: they explore, and are hardly ever nearer.
        """
        z = z[: self.queries - int(self.queries_used[row])]
        self.queries_used[row] += len(z)
        return self._decide(z, self.y[row].expand(len(z)))

    def result(self) -> DecisionAttackResult:
        """What was found, and the way there."""
        rows, queries, distances = (torch.cat(part) for part in zip(*self._log, strict=True))
        return DecisionAttackResult(self.x_adv, self.distance, rows, queries, distances)

    def _decide(self, z: Tensor, y: Tensor) -> Tensor:
        if not len(z):  # many a model, such as a forest, takes no empty batch
            return torch.zeros_like(y, dtype=torch.bool)
        parts = zip(z.split(BATCH), y.split(BATCH), strict=True)
        return torch.cat([self.goal.margin(self.model(z), y) < 0 for z, y in parts])


def starting_candidates(noise: RowNoise, x: Tensor, starts: Tensor | None) -> Callable[[Tensor, int | Tensor], Tensor]:
    """What a search may start from: of `starts` (M, *input), or uniform noise, by positions (n,) and counters."""

    def candidate(rows: Tensor, number: int | Tensor) -> Tensor:
        own = noise.select(rows)
        if starts is None:
            return own.uniform(x.shape[1:], number)
        return starts[own.integers(0, len(starts), (), number)]

    return candidate


def starting_points(
    found: DecisionSearch, noise: RowNoise, given: Tensor | None, starts: Tensor | None, tries: int
) -> tuple[Tensor, Tensor]:
    """A first point that has won for each unsolved row: the one given, or the first of several candidates.

    Args:
        found: asked once for each row and candidate.
        noise: of the rows.
        given: a point for each row (N, *input).
        starts: candidates for any row (M, *input); without either, uniform noise.
        tries: most candidates for a row.

    Returns:
        Positions (n,) of the rows that have one, in ascending order, and their points (n, *input).

    Raises:
        ValueError: both are given; a start that has not won, or is no point of the box.
    """
    if given is None:
        return first_adversarial(found, starting_candidates(noise, found.x, starts), tries)
    if starts is not None:
        raise ValueError("give one start for each row, or starts to choose from, not both")
    check_start(found.x, given)
    rows = found.active_rows
    check_adversarial(rows, found.query(rows, given[rows]))
    return rows, given[rows]


def first_adversarial(
    found: DecisionSearch, candidate: Callable[[Tensor, int | Tensor], Tensor], tries: int
) -> tuple[Tensor, Tensor]:
    """A first point that has won for each unsolved row.

    Args:
        found: asked once for each row and candidate.
        candidate: see `starting_candidates`.
        tries: most candidates for a row.

    Returns:
        Positions (n,) of the rows that have one, in ascending order, and their points (n, *input).
    """
    rows = found.active_rows
    for number in range(tries):
        if not len(rows):
            break
        rows = rows[~found.query(rows, candidate(rows, number))]
    begun = found.active_rows[found.distance[found.active_rows] < torch.inf]
    return begun, found.x_adv[begun]
