"""Copycat: extraction from the labels of random inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.attacks.answers import one_hot_labels
from aisec_lab.attacks.extraction.result import published_until_error
from aisec_lab.attacks.extraction.surrogate import QueryResult, SurrogateExtraction, draw_rows, query_result
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset


@dataclass(frozen=True)
class Copycat(SurrogateExtraction):
    """Copycat CNN: query random rows, keep the labels only, and train on a balanced set (Correia-Silva et al., 2018).

    arXiv:1806.05476. It differs from `Knockoff` without a policy in two things. Only the predicted class is used,
    whatever the victim publishes. And since foreign inputs fall into few classes, each predicted class gets an equal
    share of the training rows: its own are repeated or left out at random. The paper trains on augmented images: give
    `augmentation`.

    Call contract: docs/extraction-attacks.md. Settings: `SurrogateExtraction`.
    """

    def _ask(self, oracle: Oracle, pool: Dataset, generator: torch.Generator) -> QueryResult:
        rows = draw_rows(pool, self.budget, generator)
        x, answers, rest = query_result(pool, rows, one_hot_labels(published_until_error(oracle, pool.x[rows])))
        even = balance_classes(answers.argmax(1), generator)
        return QueryResult(x[even], answers[even], rest)


def balance_classes(y: Tensor, generator: torch.Generator) -> Tensor:
    """Choose rows so that all classes that occur are equally frequent.

    Args:
        y: classes (N,), int64.
        generator: decides which rows are repeated or left out.

    Returns:
        Indices of rows, N // K for each of the K classes that occur. The counts of two rows of one class differ by at
        most one.
    """
    classes = y.unique()
    share = len(y) // len(classes)
    rows = []
    for label in classes:
        own = (y == label).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        rows.append(own.repeat(-(-share // len(own)))[:share])
    return torch.cat(rows)
