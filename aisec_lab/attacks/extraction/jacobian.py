"""Jacobian-based augmentation: few inputs, and steps from them along which the copy changes its answer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.extraction.result import published_until_error
from aisec_lab.attacks.extraction.surrogate import QueryResult, SurrogateExtraction, draw_rows, remaining_rows
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.asked import asked

BATCH = 500  # rows a pass


@dataclass(frozen=True)
class JacobianAugmentation(SurrogateExtraction):
    """Begin with a few rows, and ask about steps from all rows so far (Papernot et al., 2017, arXiv:1602.02697, 4).

    In each round a copy is trained on what is known, and every known row x with the victim's class k gives a new one,
    x + step * sign(dF_k/dx), F_k being the copy's probability of k; these are asked about, so that the known rows
    double. In the last round random ones are asked, as many as the budget has left.

    Args:
        seeds: rows of the pool to begin with.
        step: the paper's lambda, in units of the [0, 1] input; new inputs are clipped to the box.

    Args of the call, returns, raises: as for `SurrogateExtraction`.
    """

    seeds: int = 100
    step: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= self.budget or self.step == 0:
            raise ValueError(f"seeds must lie in 1..budget, and step must not be 0: {self}")

    @property
    def rows(self) -> int:
        """Rows of the pool that the attack needs."""
        return self.seeds

    def _ask(self, oracle: Oracle, pool: Dataset, generator: torch.Generator) -> QueryResult:
        rows = draw_rows(pool, self.seeds, generator)
        x, answers = pool.x[rows], published_until_error(oracle, pool.x[rows])
        while len(answers) == len(x) < self.budget:
            copy = self._copy(x, answers, generator)
            chosen = torch.randperm(len(x), generator=generator)[: self.budget - len(x)]
            new = jacobian_step(copy, x[chosen], answers[chosen].argmax(1), self.step)
            x, answers = torch.cat([x, new]), published_until_error(oracle, new, answers)
        return QueryResult(x[: len(answers)], answers, pool.x[remaining_rows(pool, rows)])


def jacobian_step(model: nn.Module, x: Tensor, y: Tensor, step: float) -> Tensor:
    """Inputs (N, *input), moved by `step` in each number toward the sign of the gradient of the probability of y (N,).

    The log of the probability has the gradient's signs too, and keeps them where the probability underflows.
    """
    moved = []
    with asked(model):
        for rows, label in zip(x.split(BATCH), y.to(x.device).split(BATCH), strict=True):
            z = rows.clone().requires_grad_()
            (grad,) = torch.autograd.grad(-F.cross_entropy(model(z), label, reduction="sum"), z)
            moved.append((rows + step * grad.sign()).clamp(0, 1))
    return torch.cat(moved)
