"""What attacks on margins share: the best point of each row so far, and which rows are still attacked."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check_classes
from aisec_lab.attacks.evasion.search.goals import Goal

PASS_ROWS = 256  # rows of a pass over several targets, at most; smaller passes are hardly faster


class BestSoFar(ABC):
    """The best point of each row so far; at first the row itself.

    Args:
        model: classifier, frozen; called once on all rows.
        x: clean inputs (N, *input).
        y: classes (N,), true or target ones, as the goal needs them.
        goal: the margin.

    Attributes:
        x_adv: the points, shape of `x`. Rows that are adversarial without an attack stay unchanged.
        score: scores of the points (N,), the lower the better.
        logits: the model's output (N, K) on the clean rows.
        copies: number of searches for each row; copy c of row i of n is at position c * n + i.
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
        """The mask (N,) of rows that need no better point."""

    @property
    def active_mask(self) -> Tensor:
        """The mask (N,) of rows that are not adversarial, neither in their own nor in an earlier copy."""
        is_adv = self.is_adversarial.view(self.copies, -1)
        return (is_adv.cumsum(0) == 0).flatten()

    @property
    def active_rows(self) -> Tensor:
        """Positions, in the whole batch, of the rows still to be attacked."""
        return self.active_mask.nonzero().squeeze(1)

    def retain(self, rows: Tensor, z: Tensor, score: Tensor) -> None:
        """Keep points where their scores are lower.

        Args:
            rows: positions (n,) of the rows.
            z: a point for each (n, *input).
            score: of the points (n,).
        """
        lower = score < self.score[rows]
        self.x_adv[rows[lower]], self.score[rows[lower]] = z[lower], score[lower]

    def per_target(self, targets: Tensor) -> Iterator[tuple[Self, Tensor]]:
        """Attack several target classes, as many in one pass as `PASS_ROWS` allows.

        The result is that of one target after the other, whatever rows share the batch: each target has its own copy of
        a row; once a target makes the row adversarial, only earlier targets go on, and an earlier target's point is
        preferred.

        Args:
            targets: classes (N, T), in the order in which they are tried.

        Yields:
            A search over copies of the active rows, to be run by the caller, and the target (n,) of each copy.
        """
        tried = 0
        while tried < targets.shape[1] and len(rows := self.active_rows):
            group = targets[rows, tried : tried + max(1, PASS_ROWS // len(rows))]
            search = self._copy_rows(rows, group.shape[1])
            yield search, group.T.flatten()
            for z, score in zip(search.x_adv.split(len(rows)), search.score.split(len(rows)), strict=True):
                active = self.active_mask[rows]
                self.retain(rows[active], z[active], score[active])
            tried += search.copies

    def _copy_rows(self, rows: Tensor, copies: int) -> Self:
        """A search over so many copies of each of the rows at positions `rows`, with what is known about them."""
        search = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):  # one entry for each row
                setattr(search, name, value[rows.repeat(copies)])
        search.copies = copies
        return search


class LowestMargin(BestSoFar):
    """The point of lowest margin of each row so far; the score is the margin.

    Args:
        model: classifier, frozen; called once on all rows.
        x: clean inputs (N, *input).
        y: classes (N,), true or target ones, as the goal needs them.
        goal: the margin.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> None:
        super().__init__(model, x, y, goal)
        self.score = goal.margin(self.logits, y)

    @property
    def margin(self) -> Tensor:
        """Margins (N,) of the points."""
        return self.score

    @property
    def is_adversarial(self) -> Tensor:
        return self.score < 0

    def update(self, rows: Tensor, z: Tensor, logits: Tensor) -> Tensor:
        """Record points where their margins are lower.

        Args:
            rows: positions (n,) of the rows.
            z: a point for each (n, *input).
            logits: the model's output (n, K) on the points.

        Returns:
            The mask (n,) of points that are not adversarial.

        Raises:
            ValueError: classes that the model does not have.
        """
        check_classes(logits, self.y[rows])
        margin = self.goal.margin(logits.detach(), self.y[rows])
        self.retain(rows, z, margin)
        return ~(margin < 0)
