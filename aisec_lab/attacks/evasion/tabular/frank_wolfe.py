"""Evasion of table models: only changes that leave a valid row and that the attacker can pay for."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.search.best import LowestMargin
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import Loss, Margin
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, signed_loss
from aisec_lab.attacks.evasion.tabular.constraints import TabularConstraints
from aisec_lab.attacks.evasion.tabular.knapsack import field_options, linear_maximum, project_onto_options


@dataclass(frozen=True)
class FrankWolfe:
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

    table: TabularConstraints
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
        x = prepare_inputs(model, x, y, generator)
        self.table.check(x)
        mean = x.clone()
        with scored(model):
            found = LowestMargin(model, x, y, self.goal)
            for step in range(self.steps):
                rows = found.active_rows
                if not len(rows):
                    break
                offered = field_options(self.table, x[rows], self.budget)
                _, _, grad = loss_and_gradient(model, mean[rows], signed_loss(self.loss, self.goal, y[rows]))
                vertex = linear_maximum(x[rows], offered, grad)
                mean[rows] += 2 / (step + 2) * (vertex - mean[rows])
                with torch.no_grad():
                    for z in (vertex, project_onto_options(x[rows], offered, mean[rows])):
                        found.update(rows, z, model(z))
        return found.x_adv
