"""The Square attack: random search on scores, without gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored_model
from aisec_lab.attacks.evasion.black_box.oars import OARS, check_rejection_goal
from aisec_lab.attacks.evasion.black_box.square_patterns import (
    square_init_linf,
    square_init_lp,
    square_step_linf,
    square_step_lp,
)
from aisec_lab.attacks.evasion.geometry.balls import L1, L2, Ball, Linf, check_ball
from aisec_lab.attacks.evasion.search.best import LowestMargin
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.core.validation import has_reject_option

SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10,000 at which p halves
MOST = 16  # squares of a proposal with OARS


@dataclass(frozen=True)
class Square:
    """The Square attack (Andriushchenko et al., 2020, arXiv:1912.00049, algorithms 1 to 3): images only.

    Each proposal sets a random square of the image to a random corner of the ball (Linf), or moves there the
    perturbation of another square (L2, and L1 as in Croce & Hein, 2021, arXiv:2103.01208); it is kept if the margin
    falls. Call contract: docs/evasion-attacks.md; the model may be an `Oracle`.

    With `oars`, a proposal sets several squares, none smaller than a least side. Both numbers are the smallest with
    which proposals are hardly rejected. Any proposal that is rejected is drawn anew, since its margin does not fall.

    Args:
        ball: Linf, L2 or L1.
        queries: the most queries for each row, at least 2, the clean row included.
        p: share in (0, 1] of the pixels that the first square covers; it falls by the paper's schedule.
        goal: what makes a row adversarial.
        oars: adaptation to a model that rejects similar queries.

    Returns:
        Of the call: adversarial images, shape of `x`, inside ball and box, each at its lowest margin seen. A row is not
        queried again once it is adversarial.

    Raises:
        ValueError: another ball, settings outside their ranges, inputs that are no images (N, C, H, W), and what the
            call contract lists.
    """

    ball: Ball
    queries: int = 1000
    p: float = 0.8
    goal: Goal = Untargeted()
    oars: OARS | None = None

    def __post_init__(self) -> None:
        check_ball("Square", self.ball, Linf, L2, L1)
        check_rejection_goal(self.oars, self.goal)
        if self.queries < 2 or not 0 < self.p <= 1:
            raise ValueError(f"queries must be at least 2 and p in (0, 1]: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        if x.ndim != 4:
            raise ValueError(f"Square changes squares of images (N, C, H, W), got shape {tuple(x.shape)}")
        start: Callable[..., Tensor] = square_init_linf
        step: Callable[..., Tensor] = square_step_linf
        if not isinstance(self.ball, Linf):
            order = 1 if isinstance(self.ball, L1) else 2
            start, step = partial(square_init_lp, order=order), partial(square_step_lp, order=order)
        noise = RowNoise(x, generator)
        with scored_model(model), torch.no_grad():
            search = SquareSearch(model, x, y, self.goal)
            rows = search.rows
            search.query(self.ball.project(x[rows], start(x[rows], self.ball.eps, noise.select(rows))))

            def propose(squares: Tensor, least: Tensor) -> None:
                """Query a proposal for each row, with numbers of squares and least sides (N,)."""
                rows = search.rows
                squares, sides = squares[rows], least[rows].clamp(min=self._side(search.queries, x))
                z = search.delta[rows]
                for number in range(int(squares.max()) if len(rows) else 0):
                    for side in sides[squares > number].unique().tolist():
                        part = (squares > number) & (sides == side)
                        origin, own = x[rows[part]], noise.select(rows[part])
                        new = step(origin, z[part], self.ball.eps, side, own, search.queries + number * self.queries)
                        z[part] = self.ball.project(origin, new)
                search.query(z)

            ones = torch.ones_like(y)
            squares, least = self._adapted(search, propose, ones, min(x.shape[2:]))
            while len(search.rows) and search.queries < self.queries:
                propose(squares, least)
        return search.best.x_adv

    def _adapted(
        self, search: "SquareSearch", propose: Callable[[Tensor, Tensor], None], ones: Tensor, widest: int
    ) -> tuple[Tensor, Tensor]:
        """The numbers of squares, and then the least sides (N,), that OARS finds; ones where nothing is rejected."""
        if self.oars is None or not search.rejects:
            return ones, ones

        def rejected(squares: Tensor, least: Tensor) -> Tensor:
            search.rejected = torch.zeros_like(search.rejected)
            if search.queries < self.queries:
                propose(squares.ceil().long(), least.ceil().long())
            return search.rejected

        none = torch.zeros_like(search.lowest)
        squares = self.oars.smallest(none, none + MOST, lambda size, _: rejected(size, none + 1)).ceil()
        least = self.oars.smallest(none, none + widest, lambda size, _: rejected(squares, size)).ceil()
        return squares.long(), least.long()

    def _side(self, query: int, x: Tensor) -> int:
        """The side of the square at a query from 2 on: the share p of the pixels halves on the paper's schedule."""
        done = 10_000 * (query - 2) / (self.queries - 2)  # two queries come before: the clean row and the start
        share = self.p / 2 ** sum(done > after for after in SCHEDULE)
        return min(max(round(math.sqrt(share * x.shape[2:].numel())), 1), min(x.shape[2:]))


class SquareSearch:
    """The perturbation of each row with the lowest margin, and the rows that are still attacked.

    Args:
        model: classifier, frozen; called once on all rows.
        x: clean images (N, C, H, W).
        y: classes (N,), true or target ones, as the goal needs them.
        goal: what makes a row adversarial.

    Attributes:
        best: the best point of each row, the clean one included.
        rows: positions of the rows that are not adversarial.
        delta: perturbations, shape of `x`; 0 before the first query.
        lowest: their margins (N,).
        queries: queries of each of these rows so far.
        rejected: whether the last point of a row was rejected (N,).
        rejects: whether the model has a reject option.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> None:
        self.model, self.best = model, LowestMargin(model, x, y, goal)
        self.rows, self.queries, self.rejects = self.best.active_rows, 1, has_reject_option(model)
        self.delta, self.lowest = torch.zeros_like(x), torch.full_like(self.best.margin, torch.inf)
        self.rejected = torch.zeros_like(y, dtype=torch.bool)

    def query(self, z: Tensor) -> None:
        """Query a perturbation for each of `rows`, and keep those whose margin is lower.

        Args:
            z: perturbations (n, *input).
        """
        if not len(self.rows):
            return
        rows, best = self.rows, self.best
        origin = best.x[rows]
        logits = self.model(origin + z)
        margin = best.goal.margin(logits, best.y[rows])
        lower = margin < self.lowest[rows]
        self.delta[rows[lower]], self.lowest[rows[lower]] = z[lower], margin[lower]
        if self.rejects:
            self.rejected[rows] = logits.argmax(1) == logits.shape[1] - 1
        self.rows = rows[best.update(rows, origin + z, logits)]
        self.queries += 1
