"""Evasion of table models: valid rows that an attacker can reach within a budget."""

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
    """Frank-Wolfe over the valid rows within a budget (Frank & Wolfe, 1956; Jaggi, 2013, algorithm 1).

    The threat model is that of constrained feature spaces (Simonetto et al., 2022, arXiv:2112.01156, section 3). Each
    step finds exactly the valid row within the budget that maximises the linearised loss. The next gradient is taken at
    the running mean of these rows, which need not be valid. Only valid rows are scored: the one just found, and the
    nearest to the mean. On a linear model the first step is optimal. Call contract: docs/evasion-attacks.md, for rows
    (N, D) of the table; nothing is random.

    Args:
        table: the valid rows, and the attacker's changes and costs.
        budget: the largest total cost of the changes to a row, at least 0.
        steps: iterations.
        loss: what is maximised; of logits (N, K) and `y`.
        goal: what makes a row adversarial.

    Returns:
        Of the call: valid rows, shape of `x`, of cost at most the budget: each row's first adversarial point, or its
        point of lowest margin.

    Raises:
        ValueError: settings outside their ranges, rows that are not valid, and what the call contract lists.
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
            best = LowestMargin(model, x, y, self.goal)
            for step in range(self.steps):
                rows = best.active_rows
                if not len(rows):
                    break
                options = field_options(self.table, x[rows], self.budget)
                _, _, grad = loss_and_gradient(model, mean[rows], signed_loss(self.loss, self.goal, y[rows]))
                vertex = linear_maximum(x[rows], options, grad)
                mean[rows] += 2 / (step + 2) * (vertex - mean[rows])
                with torch.no_grad():
                    for z in (vertex, project_onto_options(x[rows], options, mean[rows])):
                        best.update(rows, z, model(z))
        return best.x_adv
