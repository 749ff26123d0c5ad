"""Knockoff nets: a surrogate trained on a victim's outputs for any inputs."""

from dataclasses import dataclass

import torch

from aisec_lab.attacks.extraction.bandit import BanditSampling
from aisec_lab.attacks.extraction.result import published_until_error
from aisec_lab.attacks.extraction.surrogate import QueryResult, SurrogateExtraction, draw_rows, query_result
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset


@dataclass(frozen=True)
class Knockoff(SurrogateExtraction):
    """Query rows of a pool and train a surrogate on the outputs (Orekondy et al., 2019, arXiv:1812.02766, section 4).

    The surrogate learns the published probabilities by cross-entropy, or the labels where a victim publishes only
    these. Call contract: docs/extraction-attacks.md. Further settings: `SurrogateExtraction`.

    Args:
        policy: chooses the rows and learns from the outputs, the paper's adaptive strategy, which also uses the pool's
            classes. None: the paper's random strategy, in which every row is equally likely.
    """

    policy: BanditSampling | None = None

    def _ask(self, oracle: Oracle, pool: Dataset, generator: torch.Generator) -> QueryResult:
        if self.policy is not None:
            return self.policy(oracle, pool, self.budget, self.architecture, generator=generator)
        rows = draw_rows(pool, self.budget, generator)
        return query_result(pool, rows, published_until_error(oracle, pool.x[rows]))
