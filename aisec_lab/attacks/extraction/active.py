"""Extraction by active learning: the surrogate model chooses the next queries."""

from dataclasses import dataclass

import torch

from aisec_lab.attacks.extraction.result import published_until_error
from aisec_lab.attacks.extraction.strategies import SmallestMargin, Strategy
from aisec_lab.attacks.extraction.surrogate import (
    QueryResult,
    SurrogateExtraction,
    draw_rows,
    query_result,
    remaining_rows,
)
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.passes import logits_of


@dataclass(frozen=True)
class ActiveExtraction(SurrogateExtraction):
    """ActiveThief: query in rounds, each time the rows that are most informative for the surrogate (Pal et al., 2020).

    Section 4. The budget is spent in `rounds` + 1 equal parts. The first part queries random rows; before each further
    part a new surrogate is trained on the outputs so far, and `strategy` chooses rows by its probabilities.

    Call contract: docs/extraction-attacks.md. Further settings: `SurrogateExtraction`.

    Args:
        strategy: chooses the rows.
        rounds: how often it does so, from 1 to budget - 1.
    """

    strategy: Strategy = SmallestMargin()
    rounds: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.rounds < self.budget:
            raise ValueError(f"there must be at least 1 round, and fewer than the budget has queries: {self}")

    def _ask(self, oracle: Oracle, pool: Dataset, generator: torch.Generator) -> QueryResult:
        first, *parts = (len(part) for part in torch.arange(self.budget).tensor_split(self.rounds + 1))
        rows = draw_rows(pool, first, generator)
        answers = published_until_error(oracle, pool.x[rows])
        for part in parts:
            if len(answers) < len(rows):
                break
            copy = self._copy(pool.x[rows], answers, generator)
            said, rest = logits_of(copy, pool.x).softmax(1), remaining_rows(pool, rows)
            new = rest[self.strategy(said[rest], said[rows], part)]
            rows, answers = torch.cat([rows, new]), published_until_error(oracle, pool.x[new], answers)
        return query_result(pool, rows, answers)
