"""A model that records the margins of all points that an attack queries."""

import torch
from torch import Tensor, nn

from aisec_lab.attacks import Ball
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.core.modes import in_training_mode

ORDER = {"Linf": torch.inf, "L2": 2.0, "L1": 1.0, "L0": 0.0}


class MarginRecorder(nn.Module):
    """A classifier that records the margins of all queried points, for each clean row.

    A point is assigned to the clean row that is nearest in the norm of the threat model. So the attack may drop rows
    from its batch, and its code needs no change.

    Args:
        model: classifier in evaluation mode.
        x: clean inputs (N, *input), no two of them equal.
        y: classes that the goal refers to, (N,).
        ball: the threat model, whose norm defines what is near.
        goal: defines the margin; a negative one is a success of the attack.

    Attributes:
        lowest: lowest margin of each row so far, (N,); infinite before the first query.
        history: for each row, its lowest margin so far after each query.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, ball: Ball, goal: Goal) -> None:
        super().__init__()
        self.model, self.x, self.y, self.norm, self.goal = model, x, y, ORDER[ball.name], goal
        self.lowest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.history: list[list[float]] = [[] for _ in range(len(x))]
        self.training = in_training_mode(model)

    def forward(self, z: Tensor) -> Tensor:
        """The logits (N, K) of the model at points z (N, *input)."""
        logits: Tensor = self.model(z)
        if not len(z):  # an attack may query an empty batch when no row is left
            return logits
        with torch.no_grad():
            rows = torch.cdist(z.flatten(1), self.x.flatten(1), p=self.norm).argmin(1)
            margins = self.goal.margin(logits, self.y[rows])
            self.lowest[rows] = torch.minimum(self.lowest[rows], margins)
            for row, lowest in zip(rows.tolist(), self.lowest[rows].tolist(), strict=True):
                self.history[row].append(lowest)
        return logits
