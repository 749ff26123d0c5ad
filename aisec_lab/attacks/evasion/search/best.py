"""What every search for a misclassified row keeps: the best point of each row, and the rows still in work."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check_classes
from aisec_lab.attacks.evasion.search.goals import Goal

TOGETHER = 256  # rows of a pass, at most, when targets are tried together: one of fewer takes hardly less time


class BestSoFar(ABC):
    """The best point of each row so far, beginning with the row itself.

    Args:
        model: classifier, frozen; asked once about all rows.
        x: clean inputs (N, *input).
        y: classes (N,), true or target ones, as the goal has it.
        goal: what the margin is.

    Attributes:
        x_adv: the points, shape of `x`. Rows that are won as they are stay as they are.
        score: theirs (N,), the lower the better.
        logits: the model's answer (N, K) to the rows themselves.
        copies: how many searches there are about each row; number c about row i of n stands at c * n + i.
    """

    score: Tensor
    copies = 1

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> None:
        with torch.no_grad():
            self.logits = model(x)
        check_classes(self.logits, y)
        self.x, self.y, self.goal, self.x_adv = x, y, goal, x.clone()

    @property
    @abstractmethod
    def is_adversarial(self) -> Tensor:
        """A mask (N,): rows that need no better point."""

    @property
    def active_mask(self) -> Tensor:
        """A mask (N,): rows that no search before theirs, nor theirs, has won."""
        won = self.is_adversarial.view(self.copies, -1)
        return (won.cumsum(0) == 0).flatten()

    @property
    def active_rows(self) -> Tensor:
        """Positions, in the whole batch, of the rows that are not yet won."""
        return self.active_mask.nonzero().squeeze(1)

    def retain(self, rows: Tensor, z: Tensor, score: Tensor) -> None:
        """Keep points z for the rows at positions `rows` where their scores are lower."""
        lower = score < self.score[rows]
        self.x_adv[rows[lower]], self.score[rows[lower]] = z[lower], score[lower]

    def per_target(self, targets: Tensor) -> Iterator[tuple[Self, Tensor]]:
        """Searches for every target of the rows that are not yet won, as many at once as fill a pass.

        What comes out is what one target after the other gives, whatever rows share the batch: each target has its
        search, a row's earlier targets go on where a later one has won, and an earlier one's point goes before.

        Args:
            targets: classes (N, T), in the order in which they are tried.

        Yields:
            A search to be done, over copies of the rows, and the target (n,) of each of them.
        """
        tried = 0
        while tried < targets.shape[1] and len(rows := self.active_rows):
            together = targets[rows, tried : tried + max(1, TOGETHER // len(rows))]
            several = self._copied(rows, together.shape[1])
            yield several, together.T.flatten()
            for z, score in zip(several.x_adv.split(len(rows)), several.score.split(len(rows)), strict=True):
                left = self.active_mask[rows]
                self.retain(rows[left], z[left], score[left])
            tried += several.copies

    def _copied(self, rows: Tensor, copies: int) -> Self:
        """As many searches about each of the rows at positions `rows`, which have seen what this one has."""
        several = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):  # one entry a row
                setattr(several, name, value[rows.repeat(copies)])
        several.copies = copies
        return several


class LowestMargin(BestSoFar):
    """The point of lowest margin seen so far for each row.

    Args, attributes: as for `BestSoFar`; the score is the margin.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> None:
        super().__init__(model, x, y, goal)
        self.score = goal.margin(self.logits, y)

    @property
    def margin(self) -> Tensor:
        """Of the points (N,)."""
        return self.score

    @property
    def is_adversarial(self) -> Tensor:
        return self.score < 0

    def update(self, rows: Tensor, z: Tensor, logits: Tensor) -> Tensor:
        """Take note of points z for the rows at positions `rows`, and of the model's answers to them.

        Returns:
            A mask over `rows`: which are still not won.

        Raises:
            ValueError: logits that are NaN, since a row at which the model breaks down would pass for robust.
        """
        check_classes(logits, self.y[rows])
        margin = self.goal.margin(logits.detach(), self.y[rows])
        self.retain(rows, z, margin)
        return ~(margin < 0)
