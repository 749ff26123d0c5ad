"""A model that remembers what an attack saw of each row."""

import torch
from torch import Tensor, nn

from aisec_lab.attacks import Ball
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.models.contexts import trains

ORDER = {"Linf": torch.inf, "L2": 2.0, "L1": 1.0, "L0": 0.0}


class MarginRecorder(nn.Module):
    """A classifier that keeps the margins of all points an attack asks about, by the clean row they came from.

    A point belongs to the clean row that is nearest to it in the norm of the threat; the attack need not know, and
    may drop rows from its batch as it likes.

    Args:
        model: classifier in evaluation mode.
        x: clean inputs (N, *input), no two alike.
        y: what the goal is asked about, (N,).
        ball: the threat, whose norm says what is near.
        goal: gives the margin.

    Attributes:
        lowest: the lowest margin seen of each row, (N,); infinite where it was never asked about.
        falls: one series a row: its lowest margin so far, after each time it was asked about.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, ball: Ball, goal: Goal) -> None:
        super().__init__()
        self.model, self.x, self.y, self.norm, self.goal = model, x, y, ORDER[ball.name], goal
        self.lowest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.falls: list[list[float]] = [[] for _ in range(len(x))]
        self.training = trains(model)

    def forward(self, z: Tensor) -> Tensor:
        """The model's own logits (N, K)."""
        logits: Tensor = self.model(z)
        if not len(z):  # an attack whose last row is won may still ask about none
            return logits
        with torch.no_grad():
            rows = torch.cdist(z.flatten(1), self.x.flatten(1), p=self.norm).argmin(1)
            margins = self.goal.margin(logits, self.y[rows])
            self.lowest[rows] = torch.minimum(self.lowest[rows], margins)
            for row, lowest in zip(rows.tolist(), self.lowest[rows].tolist(), strict=True):
                self.falls[row].append(lowest)
        return logits
