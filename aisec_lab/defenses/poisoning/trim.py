"""TRIM: fit a regression to the rows with the smallest residuals."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult

ROUNDS = 1000  # the error falls in each round, so no set of rows comes twice; a few rounds are usual


@dataclass(frozen=True)
class TRIM:
    """Alternate between fitting the kept rows and keeping the rows with the smallest residuals.

    Jagielski et al. (2018, arXiv:1804.00308, section 5, algorithm 2). As in the paper, the defender knows the largest
    possible number of poisoned rows. A search from random rows can end with the poison kept, so the best of several
    searches is taken.

    Args:
        learner: maps rows (N, D) and numbers (N,) to a model from (N, D) to (N, 1), such as `Ridge`.
        rate: largest share of poisoned rows, in (0, 1); so many rows are removed, poisoned or not.
        restarts: number of random starts, at least 1.

    Args of the call:
        x: rows as the learner gets them (N, D).
        y: their numbers (N,).
        generator: source of the starts.

    Returns:
        As the score, the squared residuals under the model of the kept rows; as flagged, the removed rows.

    Raises:
        ValueError: a setting out of range, or a rate that removes no row or leaves fewer than two.
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
        """One search, from random rows until a round changes nothing."""
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
