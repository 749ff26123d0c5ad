"""The call of every extraction attack, its result, and how it queries the victim."""

import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import as_probabilities, as_scores, check_not_probabilities, declared_kind
from aisec_lab.attacks.evasion.attack import check
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.passes import logits_of

BATCH = 500  # rows that are asked at once


@dataclass(frozen=True, eq=False)
class ExtractionResult:
    """The surrogate that an extraction attack trained or solved for, and what it cost.

    Args:
        model: the surrogate, a classifier in evaluation mode.
        queries: rows that the victim answered.
        error: what the victim failed with before all queries were made, so that the surrogate comes from fewer; None
            if it did not fail.
    """

    model: nn.Module
    queries: int
    error: Exception | None = None


class Extraction(Protocol):
    """An extraction attack: a frozen dataclass of settings that is called.

    Call contract: docs/extraction-attacks.md.
    """

    def __call__(self, oracle: Oracle, pool: Dataset, *, generator: torch.Generator) -> ExtractionResult:
        """Extract a surrogate of the oracle's victim.

        Args:
            oracle: the victim, in evaluation mode.
            pool: inputs that the attacker owns; their classes `pool.y` are the attacker's, not the victim's.
            generator: source of all randomness.

        Returns:
            The surrogate, the number of queries, and the victim's error, if any.

        Raises:
            ValueError: a victim in training mode, or a budget that the pool or the oracle does not have.
            Exception: what the oracle raises before it has answered anything.
        """
        ...


def published_probabilities(oracle: nn.Module, x: Tensor) -> Tensor:
    """Query a victim for probabilities, which may be rounded, truncated or perturbed.

    Args:
        oracle: the victim, which counts each row; or any classifier.
        x: queries (N, *input), float32 in [0, 1].

    Returns:
        Probabilities (N, K), on the CPU: the published ones; the softmax of logits, with 0 for a logit of -inf; or
        one-hot rows where only labels are published.

    Raises:
        ValueError: outputs that are no distribution (NaN, +inf, or -inf for every class), or probabilities that were
            not declared, which a softmax would distort.
        OutOfQueriesError: more rows than the oracle's budget has left.
    """
    return _probabilities(oracle, logits_of(oracle, x))


def published_until_error(oracle: Oracle, x: Tensor, known: Tensor | None = None) -> Tensor:
    """Query a victim in batches, and stop at its first error.

    Args:
        oracle: the victim, which counts each row.
        x: queries (N, *input), float32 in [0, 1].
        known: earlier probabilities (M, K), to which the new ones are appended; None before the first.

    Returns:
        Probabilities (M + n, K), those of the first n <= N queries last, as `published_probabilities` gives them. Where
        n < N, `oracle.error` says why.

    Raises:
        Exception: what the victim fails with, where nothing was answered yet.
        ValueError: outputs that are no distribution.
    """
    told, at_once = [], min(BATCH, oracle.rows or BATCH)
    for batch in x.split(at_once):
        try:
            told.append(logits_of(oracle, batch, at_once))
        except Exception as error:
            if error is not oracle.error or (known is None and not told):
                raise
            break
    new = [_probabilities(oracle, torch.cat(told))] if told else []
    return torch.cat(new if known is None else [known, *new])


def warn_if_incomplete(oracle: Oracle, queries: int) -> Exception | None:
    """Warn if the victim's last call failed.

    Args:
        oracle: the victim.
        queries: rows that it answered, for the message.

    Returns:
        The error of its last call; None where that was answered.
    """
    if oracle.error is not None:
        warnings.warn(
            f"the victim stopped answering after {queries} queries, {type(oracle.error).__name__}: {oracle.error}: the "
            "surrogate comes from these answers alone",
            RuntimeWarning,
            stacklevel=3,
        )
    return oracle.error


def _probabilities(oracle: nn.Module, answers: Tensor) -> Tensor:
    """Published probabilities from scores as an oracle or a classifier outputs them."""
    kind = declared_kind(oracle) or "logits"
    if kind == "logits" and not isinstance(oracle, Oracle):  # which has looked itself
        check_not_probabilities(answers)
    probabilities = as_probabilities(as_scores(answers, kind), kind)
    if probabilities.isnan().any():
        row = int(probabilities.isnan().any(1).nonzero()[0])
        raise ValueError(
            f"answer {row} is no distribution, its logits are {answers[row].tolist()[:4]}...: give a defense that "
            "publishes zeros a floor under its logarithm, and check the victim's weights"
        )
    return probabilities


def check_extraction(oracle: Oracle, pool: Dataset, budget: int, *, at_least: int = 1) -> None:
    """Refuse, before the first query, an attack that cannot succeed.

    Args:
        oracle: the victim.
        pool: the attacker's inputs.
        budget: rows that the attack will query.
        at_least: rows that it needs.

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
