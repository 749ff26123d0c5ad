"""Square: random search on the scores that a model gives, without gradients."""

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

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the share of pixels, in a search of 10,000 queries


@dataclass(frozen=True)
class Square:
    """Square attack (Andriushchenko et al., 2020, arXiv:1912.00049, algorithms 1 to 3): images only.

    Squares at random places change to random corners of the ball (Linf), or take over the length of the
    perturbation elsewhere (L2, and L1 as in Croce & Hein, 2021, arXiv:2103.01208), and stay where this lowers the
    margin.

    Args of the call:
        model: classifier in evaluation mode; images in [0, 1], shape (N, C, H, W), to logits (N, K).
        x, y: clean images and their true classes (N,), int64; with the goal `Targeted`, the targets.
        generator: source of all proposals.

    Returns:
        Adversarial images, shape of `x`, inside ball and box, at the lowest margin seen. The model sees no
        row more than `queries` times, the clean row included, and none again once it is won.

    Raises:
        ValueError: another ball, inputs that are no images, and what `PGD` refuses.
    """

    ball: Ball
    queries: int = 1000
    p: float = 0.8  # share of the pixels that the first square changes
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
            found = LowestMargin(model, x, y, self.goal)
            rows = found.active_rows
            delta, lowest = torch.zeros_like(x), torch.full_like(found.margin, torch.inf)
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
                rows = rows[found.update(rows, origin + z, logits)]
        return found.x_adv

    def _side(self, query: int, x: Tensor) -> int:
        """The side of the square at a query from 2 on: the share p of the pixels halves on the paper's schedule."""
        done = 10_000 * (query - 2) / (self.queries - 2)  # before them the clean row and the start
        share = self.p / 2 ** sum(done > halving for halving in HALVINGS)
        return min(max(round(math.sqrt(share * x.shape[2:].numel())), 1), min(x.shape[2:]))
