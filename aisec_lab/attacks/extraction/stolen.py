"""What an extraction attack is called with, and what it has got in the end."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.evasion.door import check
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.passes import logits_of


@dataclass(frozen=True, eq=False)
class Stolen:
    """A copy of a victim, and what it cost.

    Args:
        model: the copy, a classifier in evaluation mode.
        queries: rows that the victim answered.
    """

    model: nn.Module
    queries: int


class Extraction(Protocol):
    """An extraction attack: a frozen dataclass of settings that is called."""

    def __call__(self, oracle: Oracle, pool: Dataset, *, generator: torch.Generator) -> Stolen:
        """A copy of the oracle's victim, from its answers on inputs that are in `pool` or made from them.

        Args:
            oracle: the victim, in evaluation mode.
            pool: inputs that the attacker owns; their classes `pool.y` are the attacker's, not the victim's.
            generator: the attack's only randomness.
        """
        ...


def published(oracle: nn.Module, x: Tensor) -> Tensor:
    """The probabilities that a victim publishes, rounded, cut or perturbed as they may be.

    Args:
        oracle: the victim, which counts each row; or any classifier.
        x: queries (N, *input), float32 in [0, 1].

    Returns:
        Probabilities (N, K), on the CPU: the softmax of its answers, in which a logit of -inf is a plain 0, or the
        answers themselves where it publishes labels only.

    Raises:
        ValueError: answers that are no distribution: NaN, +inf, or -inf for every class.
        RuntimeError: more rows than the oracle's budget has left.
    """
    answers = logits_of(oracle, x)
    probabilities = answers if getattr(oracle, "labels_only", False) else answers.softmax(1)
    if probabilities.isnan().any():
        row = int(probabilities.isnan().any(1).nonzero()[0])
        raise ValueError(
            f"answer {row} is no distribution, its logits are {answers[row].tolist()[:4]}...: give a defense that "
            "publishes zeros a floor under its logarithm, and check the victim's weights"
        )
    return probabilities


def labels(answers: Tensor) -> Tensor:
    """Answers (N, K) reduced to their winning class, a row of zeros with a one."""
    return F.one_hot(answers.argmax(1), answers.shape[1]).to(answers.dtype)


def opened(oracle: Oracle, pool: Dataset, budget: int, *, at_least: int = 1) -> None:
    """Refuse, before the first query, an attack that cannot be carried out.

    Args:
        oracle: the victim.
        pool: the attacker's inputs.
        budget: rows that the attack will ask.
        at_least: rows that it cannot do without.

    Raises:
        ValueError: a victim in training mode, or a budget that is below `at_least` or above what the oracle has left.
    """
    check(oracle, pool.x[:0], pool.y[:0])
    if budget < at_least:
        raise ValueError(f"this attack needs a budget of {at_least} queries at least, got {budget}: raise it")
    if oracle.budget is not None and budget > oracle.budget - oracle.queries:
        raise ValueError(
            f"{budget} queries, but the oracle answers only {oracle.budget - oracle.queries} more: lower the attack's "
            "budget or raise the oracle's"
        )
