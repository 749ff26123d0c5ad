"""Copycat: labels of random natural inputs are enough."""

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
    """Ask about random rows, keep the labels alone, and train on as many of each (Correia-Silva et al., 2018).

    arXiv:1806.05476. It is `Knockoff` without a policy but for two things: the answer's winning class is all that it
    looks at, whatever the victim publishes; and since inputs from elsewhere crowd into few classes, each class that
    was answered at all then fills an equal share of the training rows, its own repeated or left out at random. The
    paper trains on augmented images: give `augmentation`.

    Args, args of the call, returns, raises: as for `SurrogateExtraction`.
    """

    def _ask(self, oracle: Oracle, pool: Dataset, generator: torch.Generator) -> QueryResult:
        rows = draw_rows(pool, self.budget, generator)
        x, answers, rest = query_result(pool, rows, one_hot_labels(published_until_error(oracle, pool.x[rows])))
        even = balance_classes(answers.argmax(1), generator)
        return QueryResult(x[even], answers[even], rest)


def balance_classes(y: Tensor, generator: torch.Generator) -> Tensor:
    """Rows in which every class that occurs does so equally often.

    Args:
        y: classes (N,), int64.
        generator: which rows are repeated, or left out.

    Returns:
        Indices of rows, N // K of each of the K classes that occur. No row stands there more than once oftener than
        another of its class.
    """
    classes = y.unique()
    share = len(y) // len(classes)
    rows = []
    for label in classes:
        own = (y == label).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        rows.append(own.repeat(-(-share // len(own)))[:share])
    return torch.cat(rows)
