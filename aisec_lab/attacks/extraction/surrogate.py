"""What all extraction by copying shares: ask, then train a copy on the answers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aisec_lab.attacks.extraction.result import ExtractionResult, check_extraction, warn_if_incomplete
from aisec_lab.attacks.extraction.self_training import SelfTraining
from aisec_lab.attacks.extraction.surrogate_training import InputAugmentation, train_surrogate
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.layers import Architecture
from aisec_lab.models.training.fit import Fit


class QueryResult(NamedTuple):
    """Queries (N, *input), what was published for them (N, K), and the inputs of the pool (M, *input) that are left."""

    x: Tensor
    answers: Tensor
    rest: Tensor


@dataclass(frozen=True)
class SurrogateExtraction(ABC):
    """An extraction attack that asks `budget` rows and trains a copy on the answers; how it chooses them is its own.

    Args:
        architecture: of the copy; the victim's need not be known.
        budget: rows that are asked, in all.
        fit: how a copy is trained.
        augmentation: changes the inputs in training; none by default.
        self_training: how the inputs that were not asked about are used; not at all by default.

    Args of the call:
        oracle: the victim, in evaluation mode; it may publish probabilities of any kind or labels alone.
        pool: inputs that the attacker owns.
        generator: the attack's only randomness.

    Returns:
        The copy, in evaluation mode, and the rows that were asked: `budget` of them, not one more. Where the victim
        stops answering half-way, or a monitor withholds its answers, the copy is made of what was answered before;
        `ExtractionResult.error` says why, and so does a warning.

    Raises:
        ValueError: a budget that the pool or the oracle does not have, or a victim in training mode.
        Exception: whatever the oracle raises before it has answered anything.
    """

    architecture: Architecture
    budget: int = 1000
    fit: Fit = Fit()
    augmentation: InputAugmentation | None = None
    self_training: SelfTraining | None = None

    def __call__(self, oracle: Oracle, pool: Dataset, *, generator: torch.Generator) -> ExtractionResult:
        check_extraction(oracle, pool, self.budget)
        if self.rows > len(pool):
            raise ValueError(
                f"the attack takes {self.rows} rows of {pool.name}, which has {len(pool)}: lower the attack's budget, "
                "or where it has seeds, those"
            )
        before = oracle.queries
        x, answers, rest = self._ask(oracle, pool, generator)

        def train(x: Tensor, answers: Tensor) -> nn.Module:
            return self._copy(x, answers, generator)

        copy = train(x, answers) if self.self_training is None else self.self_training(train, x, answers, rest)
        queries = oracle.queries - before
        return ExtractionResult(copy, queries, warn_if_incomplete(oracle, queries))

    @property
    def rows(self) -> int:
        """Rows of the pool that the attack needs."""
        return self.budget

    @abstractmethod
    def _ask(self, oracle: Oracle, pool: Dataset, generator: torch.Generator) -> QueryResult:
        """Spend the budget, or what of it is answered."""

    def _copy(self, x: Tensor, answers: Tensor, generator: torch.Generator) -> nn.Module:
        """A new copy, from what is known."""
        return train_surrogate(
            self.architecture,
            x,
            answers,
            fit=self.fit,
            generator=generator,
            name="the victim's answers",
            augmentation=self.augmentation,
        )


def draw_rows(pool: Dataset, n: int, generator: torch.Generator) -> Tensor:
    """Indices (n,) of different rows of a pool, each as likely as any other."""
    return torch.randperm(len(pool), generator=generator)[:n]


def query_result(pool: Dataset, rows: Tensor, answers: Tensor) -> QueryResult:
    """The pool's first `rows` with their answers (N, K), in this order, and the rest in the pool's."""
    rows = rows[: len(answers)]
    return QueryResult(pool.x[rows], answers, pool.x[remaining_rows(pool, rows)])


def remaining_rows(pool: Dataset, rows: Tensor) -> Tensor:
    """Indices of the pool's rows that are not among `rows` (N,), sorted."""
    left = torch.ones(len(pool), dtype=torch.bool)
    left[rows] = False
    return left.nonzero().flatten()
