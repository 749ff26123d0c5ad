"""Knockoff nets: a copy trained on what a victim says about inputs from anywhere."""

from dataclasses import dataclass

import torch

from aisec_lab.attacks.extraction.bandit import BanditSampling
from aisec_lab.attacks.extraction.result import published_until_error
from aisec_lab.attacks.extraction.surrogate import QueryResult, SurrogateExtraction, draw_rows, query_result
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset


@dataclass(frozen=True)
class Knockoff(SurrogateExtraction):
    """Ask about rows of a pool and train a copy on the answers (Orekondy et al., 2019, arXiv:1812.02766, section 4).

    The copy learns the published probabilities by cross-entropy; where a victim publishes labels alone, it learns
    those.

    Args:
        policy: chooses the rows while it learns from the answers, the paper's adaptive strategy; none by default, its
            random one, in which every row is as likely as any other.

    Args of the call, returns, raises: as for `SurrogateExtraction`. A policy also sees the classes of the pool, which
    are the attacker's.
    """

    policy: BanditSampling | None = None

    def _ask(self, oracle: Oracle, pool: Dataset, generator: torch.Generator) -> QueryResult:
        if self.policy is not None:
            return self.policy(oracle, pool, self.budget, self.architecture, generator=generator)
        rows = draw_rows(pool, self.budget, generator)
        return query_result(pool, rows, published_until_error(oracle, pool.x[rows]))
