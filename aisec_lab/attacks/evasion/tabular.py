"""Evasion of table models: only changes that leave a valid row and that the attacker can pay for."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.door import admit, scored
from aisec_lab.attacks.evasion.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.gradient import objective
from aisec_lab.attacks.evasion.losses import Loss, Margin
from aisec_lab.attacks.evasion.purchases import nearest, offers, steepest
from aisec_lab.attacks.evasion.search import Lowest, ascent
from aisec_lab.attacks.evasion.tables import Table


@dataclass(frozen=True)
class Tabular:
    """Frank-Wolfe over the rows that a budget buys (Frank & Wolfe, 1956; Jaggi, 2013, algorithm 1).

    The threat is that of constrained feature spaces (Simonetto et al., 2022, arXiv:2112.01156, section 3). Each step
    finds, exactly, the valid row within the budget to which the gradient points the farthest; the mean of these rows,
    which need not be valid, is where the next gradient is taken. Only valid rows are scored: the one just found, and
    the nearest to the mean. On a linear model the first step is the optimum.

    Args:
        table: the space, and what an attacker can change at which cost.
        budget: the most that the changes to one row may cost in all.

    Args of the call:
        model: classifier in evaluation mode; rows (N, D) to logits (N, K).
        x, y: clean rows of the space and their true classes (N,), int64; with the goal `Targeted`, the targets.
        generator: unused.

    Returns:
        Rows of the space, shape of `x`, that cost at most the budget: as soon as one is won, else the row of lowest
        margin. A row that is won as it is stays untouched.

    Raises:
        ValueError: rows that are not in the space, and what `PGD` refuses.
    """

    table: Table
    budget: float
    steps: int = 20
    loss: Loss = Margin()
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.budget) and self.budget >= 0):
            raise ValueError(f"budget must be a finite number >= 0, got {self.budget}")
        if self.steps < 1:
            raise ValueError(f"steps must be positive, got {self.steps}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = admit(model, x, y, generator)
        self.table.check(x)
        mean = x.clone()
        with scored(model):
            found = Lowest(model, x, y, self.goal)
            for step in range(self.steps):
                rows = found.unsolved
                if not len(rows):
                    break
                offered = offers(self.table, x[rows], self.budget)
                _, _, grad = ascent(model, mean[rows], objective(self.loss, self.goal, y[rows]))
                vertex = steepest(x[rows], offered, grad)
                mean[rows] += 2 / (step + 2) * (vertex - mean[rows])
                with torch.no_grad():
                    for z in (vertex, nearest(x[rows], offered, mean[rows])):
                        found.see(rows, z, model(z))
        return found.x_adv
