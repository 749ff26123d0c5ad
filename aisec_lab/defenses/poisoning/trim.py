"""TRIM: learn a regression from the rows that agree with one another, and from no other."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult

ROUNDS = 1000  # the error falls at each, so that none comes twice; a handful is usual


@dataclass(frozen=True)
class TRIM:
    """Alternate between learning from the rows kept and keeping those with the smallest residuals.

    Jagielski et al. (2018, arXiv:1804.00308, section 5, algorithm 2). As in the paper, the defender knows how many rows
    may be poisoned at most. A search from random rows can end where the poison is kept: the best of several is taken.

    Args:
        learner: from rows (N, D) and numbers (N,) to a model from (N, D) to (N, 1), such as `Ridge`.
        rate: the largest share of poisoned rows that is reckoned with; so many are trimmed, poisoned or not.
        restarts: how many random beginnings there are.

    Args of the call:
        x: rows as the learner gets them (N, D).
        y: their numbers (N,).
        generator: source of the beginnings.

    Returns:
        The squared residuals under the model of the rows kept, and as flagged the rows trimmed.

    Raises:
        ValueError: a rate outside (0, 1), no restart; a rate that trims no row or leaves fewer than two.
    """

    learner: Callable[[Tensor, Tensor], nn.Module]
    rate: float = 0.2
    restarts: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.restarts < 1:
            raise ValueError(f"rate must lie between 0 and 1, and restarts be positive: {self}")

    def __call__(self, x: Tensor, y: Tensor, *, generator: torch.Generator) -> SanitizerResult:
        trimmed = round(self.rate * len(x))
        if not 1 <= trimmed <= len(x) - 2:
            raise ValueError(f"a rate of {self.rate} trims {trimmed} of {len(x)} rows: at least one, and leave two")
        searches = [self._search(x, y, len(x) - trimmed, generator) for _ in range(self.restarts)]
        return min(searches, key=lambda found: float(found.score[~found.flagged].mean()))

    def _search(self, x: Tensor, y: Tensor, size: int, generator: torch.Generator) -> SanitizerResult:
        """From one random beginning to rows that no round changes."""
        kept = torch.randperm(len(x), generator=generator)[:size]
        for _ in range(ROUNDS):
            with torch.no_grad():
                residual = (self.learner(x[kept], y[kept])(x).squeeze(1) - y).double().square()
            closest = residual.argsort(stable=True)[:size]
            if torch.equal(closest.sort().values, kept.sort().values):
                break
            kept = closest
        flagged = torch.ones(len(x), dtype=torch.bool)
        flagged[kept] = False
        return SanitizerResult(residual, flagged)
