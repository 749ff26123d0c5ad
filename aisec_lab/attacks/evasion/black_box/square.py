"""The Square attack: random search on scores, without gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
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

SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10,000 at which p halves


@dataclass(frozen=True)
class Square:
    """The Square attack (Andriushchenko et al., 2020, arXiv:1912.00049, algorithms 1 to 3): images only.

    Each proposal sets a random square of the image to a random corner of the ball (Linf), or moves there the
    perturbation of another square (L2, and L1 as in Croce & Hein, 2021, arXiv:2103.01208); it is kept if the margin
    falls. Call contract: docs/evasion-attacks.md; the model may be an `Oracle`.

    Args:
        ball: Linf, L2 or L1.
        queries: the most queries for each row, at least 2, the clean row included.
        p: share in (0, 1] of the pixels that the first square covers; it falls by the paper's schedule.
        goal: what makes a row adversarial.

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

    def __post_init__(self) -> None:
        check_ball("Square", self.ball, Linf, L2, L1)
        if self.queries < 2 or not 0 < self.p <= 1:
            raise ValueError(f"queries must be at least 2 and p in (0, 1]: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        if x.ndim != 4:
            raise ValueError(f"Square changes squares of images (N, C, H, W), got shape {tuple(x.shape)}")
        start: Callable[..., Tensor] = square_init_linf
        propose: Callable[..., Tensor] = square_step_linf
        if not isinstance(self.ball, Linf):
            order = 1 if isinstance(self.ball, L1) else 2
            start, propose = partial(square_init_lp, order=order), partial(square_step_lp, order=order)
        noise = RowNoise(x, generator)
        with scored(model), torch.no_grad():
            best = LowestMargin(model, x, y, self.goal)
            rows = best.active_rows
            delta, lowest = torch.zeros_like(x), torch.full_like(best.margin, torch.inf)
            for query in range(1, self.queries):
                if not len(rows):
                    break
                origin, own = x[rows], noise.select(rows)
                if query == 1:
                    z = start(origin, self.ball.eps, own)
                else:
                    z = propose(origin, delta[rows], self.ball.eps, self._side(query, x), own, query)
                z = self.ball.project(origin, z)
                logits = model(origin + z)
                margin = self.goal.margin(logits, y[rows])
                lower = margin < lowest[rows]
                delta[rows[lower]], lowest[rows[lower]] = z[lower], margin[lower]
                rows = rows[best.update(rows, origin + z, logits)]
        return best.x_adv

    def _side(self, query: int, x: Tensor) -> int:
        """The side of the square at a query from 2 on: the share p of the pixels halves on the paper's schedule."""
        done = 10_000 * (query - 2) / (self.queries - 2)  # two queries come before: the clean row and the start
        share = self.p / 2 ** sum(done > after for after in SCHEDULE)
        return min(max(round(math.sqrt(share * x.shape[2:].numel())), 1), min(x.shape[2:]))
