"""Jacobian-based dataset augmentation: extraction from few inputs and steps along the surrogate's gradient."""

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
    """Start with a few rows and query perturbed copies of all rows so far (Papernot et al., 2017, arXiv:1602.02697).

    Section 4: in each round a surrogate is trained on the outputs so far. Every known row x with the victim's class k
    gives a new one, x + step * sign(dF_k/dx), where F_k is the surrogate's probability of k. The new rows are queried,
    so that the known rows double. The last round queries random ones, as many as the budget has left.

    Call contract: docs/extraction-attacks.md. Further settings: `SurrogateExtraction`.

    Args:
        seeds: rows of the pool to start with, from 1 to the budget.
        step: the paper's lambda, in units of the [0, 1] input, not 0; new inputs are clipped to [0, 1].
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
    """Perturb inputs along the signs of the gradient of a class's probability.

    The gradient is that of the log probability: it has the same signs, and keeps them where the probability underflows.

    Args:
        model: classifier.
        x: inputs (N, *input) in [0, 1].
        y: a class for each (N,), int64.
        step: factor of the signs.

    Returns:
        Inputs, shape of `x`, clipped to [0, 1].
    """
    moved = []
    with asked(model):
        for rows, label in zip(x.split(BATCH), y.to(x.device).split(BATCH), strict=True):
            z = rows.clone().requires_grad_()
            (grad,) = torch.autograd.grad(-F.cross_entropy(model(z), label, reduction="sum"), z)
            moved.append((rows + step * grad.sign()).clamp(0, 1))
    return torch.cat(moved)
