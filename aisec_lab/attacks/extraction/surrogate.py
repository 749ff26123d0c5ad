"""The base of extraction by a surrogate: query the victim, then train a surrogate on its outputs."""

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
    """Queries and their outputs.

    Args:
        x: queries that were answered (N, *input).
        answers: probabilities that were published for them (N, K).
        rest: inputs of the pool that were not queried (M, *input).
    """

    x: Tensor
    answers: Tensor
    rest: Tensor


@dataclass(frozen=True)
class SurrogateExtraction(ABC):
    """An extraction attack that queries `budget` rows and trains a surrogate on the outputs.

    Call contract: docs/extraction-attacks.md. A subclass implements `_ask`, which chooses the queries.

    Args:
        architecture: of the surrogate; that of the victim need not be known.
        budget: rows to query in all, at least 1.
        fit: how a surrogate is trained.
        augmentation: changes the inputs in training; None for no change.
        self_training: how inputs that were not queried are used; None: not at all.
    """

    architecture: Architecture
    budget: int = 1000
    fit: Fit = Fit()
    augmentation: InputAugmentation | None = None
    self_training: SelfTraining | None = None

    def __call__(self, oracle: Oracle, pool: Dataset, *, generator: torch.Generator) -> ExtractionResult:
        """Extract a surrogate of the oracle's victim.

        Args:
            oracle: the victim, in evaluation mode; it may publish logits, probabilities or labels.
            pool: inputs that the attacker owns, at least `rows`.
            generator: source of all randomness.

        Returns:
            The surrogate, in evaluation mode, after exactly `budget` queries. Where the victim fails on the way, or a
            monitor withholds its outputs, the surrogate is trained on those that came before;
            `ExtractionResult.error` says why, and a warning does.

        Raises:
            ValueError: a budget that the pool or the oracle does not have, or a victim in training mode.
            Exception: what the oracle raises before it has answered anything.
        """
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
        """Number of rows of the pool that the attack needs."""
        return self.budget

    @abstractmethod
    def _ask(self, oracle: Oracle, pool: Dataset, generator: torch.Generator) -> QueryResult:
        """Query the victim until the budget is spent or the victim fails."""

    def _copy(self, x: Tensor, answers: Tensor, generator: torch.Generator) -> nn.Module:
        """A new surrogate, trained on queries and their outputs."""
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
    """Indices (n,) of different rows of a pool, each equally likely, int64."""
    return torch.randperm(len(pool), generator=generator)[:n]


def query_result(pool: Dataset, rows: Tensor, answers: Tensor) -> QueryResult:
    """Collect queries and their outputs.

    Args:
        pool: the attacker's inputs.
        rows: indices of the queries (M,), in their order; the first N were answered.
        answers: published probabilities (N, K), N <= M.

    Returns:
        The first N queries, their outputs, and all other inputs of the pool in its order.
    """
    rows = rows[: len(answers)]
    return QueryResult(pool.x[rows], answers, pool.x[remaining_rows(pool, rows)])


def remaining_rows(pool: Dataset, rows: Tensor) -> Tensor:
    """Indices of the pool's rows that are not among `rows` (N,), sorted."""
    left = torch.ones(len(pool), dtype=torch.bool)
    left[rows] = False
    return left.nonzero().flatten()
